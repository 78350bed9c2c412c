"""Rigorous arithmetic: in go functions and intervals, out come enclosures (balls, jets, ranges, images) that hold."""
