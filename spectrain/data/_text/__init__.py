"""Text and tokenizers: in go files of any kind, out come documents and tokens, or an error that names file and line."""
