"""What may be done to Muon's update before and after msign: in go averages or updates, out come others.

A variant is one file, which ends in a ``Variant``, and one line in ``variants.py``.
"""
