"""What benchmarks ask of a run of the main job."""

import torch

from spectrain import data, train


def held_out(made: train.TrainedRun) -> torch.Tensor:
    """The tokens of the documents that the run has not learned from."""
    documents = data.read_documents(made.config.data or None)
    _, kept = data.split_documents(documents, fraction=made.config.validation_fraction, seed=made.config.seed)
    return torch.from_numpy(made.tokenizer.encode_documents(kept).astype("int64"))
