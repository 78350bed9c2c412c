"""Spectral methods for training neural networks, from the best polynomial to a trained model.

Import a layer and use its door: ``from spectrain import matfun`` and then ``matfun.msign(X)``.
"""

__version__ = "0.1.0"
