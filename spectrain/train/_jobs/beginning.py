"""Where a language model begins: with drawn weights, or with those of a finished run, of whose shape it is then."""

import dataclasses
from pathlib import Path

import safetensors.torch
import torch

from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run import recorded as _recorded
from spectrain.train._run import tie as _tie
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig

SHAPE = (
    "depth", "width", "heads", "kv_heads", "hidden", "tied", "attention", "head_dim", "rotary_dim", "latent",
    "query_rank", "window", "sinks", "log_n", "qk_norm", "moe_experts", "moe_top_k", "moe_shared", "parametrisation",
    "base_width", "tokenizer", "vocabulary",
)  # fmt: skip
"""What weights and token numbers have decided. ``block`` is free, for positions are rotations; so is all of training,
but that ``log_n`` is measured against the ``block`` of this run."""


def inherit(config: TrainConfig) -> TrainConfig:
    """The configuration with the shape of the run in ``--init-from``.

    Raises ``ValueError`` where that is no finished run of ``spectrain train``, where its layers were replaced by
    ``compress``, and for a flag that asks for another shape, by name.
    """
    if config.init_from is None:
        return config
    source = RunFolder(Path(config.init_from))
    if not source.config.exists() or not source.model.exists():
        raise ValueError(f"--init-from {config.init_from} is no finished run: it has no config.json and weights.")
    if source.factors.exists():
        raise ValueError(
            f"--init-from {config.init_from} was compressed, and factors are not trained on; give its source."
        )
    _tie.check(source)
    recorded = _recorded.read_config(source.config, TrainConfig)
    for flag, asked, there in _recorded.differing(recorded, config, SHAPE, unless=TrainConfig()):
        raise ValueError(
            f"{flag} {asked} differs from the {there} of --init-from {config.init_from}, whose weights have that "
            "shape. Leave the flag out."
        )
    return dataclasses.replace(config, **{name: getattr(recorded, name) for name in SHAPE})


def tokenizer_file(config: TrainConfig, folder: RunFolder, *, resuming: bool) -> Path | None:
    """The tokenizer that the weights know; None where one is to be trained."""
    if resuming:
        return folder.tokenizer
    return None if config.init_from is None else RunFolder(Path(config.init_from)).tokenizer


def load_first_weights(model: torch.nn.Module, config: TrainConfig, folder: RunFolder) -> None:
    """Put in the weights to begin with, unless the run has a checkpoint, which holds all that matters."""
    if config.init_from is None or _checkpoint.every(folder.checkpoints):
        return
    source = RunFolder(Path(config.init_from)).model
    try:
        safetensors.torch.load_model(model, str(source))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"--init-from: {source} cannot be loaded: {str(error).splitlines()[-1].strip()}") from None
