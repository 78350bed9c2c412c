"""Smooth top-k: in go scores and k, out come weights that sum to k, with their derivative."""
