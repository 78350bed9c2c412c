"""Compression of a trained model: in go a run and a budget, out comes a folder with factored layers."""
