"""Hugging Face's folders: in goes a folder or a model, out comes a model or a folder with the same function."""
