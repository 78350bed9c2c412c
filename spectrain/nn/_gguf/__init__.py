"""GGUF, the one file of llama.cpp and its relatives: in goes a model, out comes a file with the same function."""
