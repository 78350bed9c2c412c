"""Figures and HTML: in go numbers, out come SVG and markup."""
