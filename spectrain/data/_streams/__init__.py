"""Batches as functions of (seed, step): in go arrays of tokens, out come rows that any rank and any resume agree on."""
