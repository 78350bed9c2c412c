"""Attention of every kind: in go hidden states, positions and a cache, out come hidden states."""
