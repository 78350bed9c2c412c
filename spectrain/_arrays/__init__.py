"""Arrays for all layers: how they come in and go out, which kinds are refused, powers of two, products, random numbers.

Knows torch and NumPy and nothing of ours. Layers add what they accept besides and what their results are.
"""
