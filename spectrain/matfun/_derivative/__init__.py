"""Derivatives of spectral functions: in go factors and a tangent or gradient, out comes the Daleckii-Krein product."""
