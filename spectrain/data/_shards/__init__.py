"""Text larger than memory: in go paths, out come files of tokens that are mapped, made once and checked when opened."""
