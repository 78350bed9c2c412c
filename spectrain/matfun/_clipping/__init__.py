"""Singular values clipped: in go a batch and an interval, out comes the change, exact or by signs."""
