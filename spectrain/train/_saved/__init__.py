"""Models of finished runs: in goes a folder, out comes the model, a search engine, or its factors."""
