"""Compositions: in go an interval, a price or a tolerance and a dtype, out comes a schedule that survives rounding."""
