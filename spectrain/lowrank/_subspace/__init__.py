"""Subspaces for the singular value decomposition: in goes a matrix or operator, out come orthonormal factors."""
