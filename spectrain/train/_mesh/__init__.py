"""Several processes as one run: in goes what ``torchrun`` started, out come ranks that agree, and a model in shards."""
