"""Where a language model begins: with drawn weights, or with those of a finished run, or of transformers' folder.

It is of the shape of that model then.
"""

import dataclasses
from pathlib import Path

import safetensors.torch
import torch

from spectrain import data
from spectrain._files.read import NOT_FINITE, read_object
from spectrain._files.write import write_json
from spectrain.train._jobs import pretrained
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run import recorded as _recorded
from spectrain.train._run import tie as _tie
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig

SHAPE = (
    "depth", "width", "heads", "kv_heads", "hidden", "tied", "attention", "head_dim", "value_dim", "rotary_dim",
    "latent", "query_rank", "output_rank", "window", "sinks", "log_n", "qk_norm", "bias", "feed_forward_bias", "norms",
    "norm_eps", "embedding_norm", "rotary_base", "rotary_scaling", "context", "embedding_rows", "family", "moe_experts",
    "moe_top_k", "moe_shared", "moe_select", "parametrisation", "base_width", "tokenizer", "vocabulary",
)  # fmt: skip
"""What weights and token numbers have decided. ``block`` is free, for positions are rotations; so is all of training,
but that ``log_n`` is measured against the ``block`` of this run."""


def inherit(config: TrainConfig) -> TrainConfig:
    """The configuration with the shape of what ``--init-from`` names, and the size of the tokenizer of ``--tokenizer``.

    Raises ``ValueError`` where that is no finished run of ``spectrain train`` and no folder of transformers' that can
    be read, where its layers were replaced by ``compress``, and for a flag that asks for another shape, by name.
    """
    if config.init_from is None:
        return _with_tokenizer(config)
    place = Path(config.init_from)
    there = pretrained.is_pretrained(place)
    recorded = pretrained.as_config(place, tokenizer=config.tokenizer) if there else _finished(place)
    for flag, asked, was in _recorded.differing(recorded, config, SHAPE, unless=TrainConfig()):
        raise ValueError(
            f"{flag} {asked} differs from the {was} of --init-from {config.init_from}, whose weights have that "
            "shape. Leave the flag out."
        )
    block = config.block
    if there and recorded.context is not None and block > recorded.context:
        if block != TrainConfig().block:
            raise ValueError(
                f"--block {block} is beyond the {recorded.context} tokens that --init-from {place} knows; give at most "
                "that."
            )
        block = recorded.block
    return dataclasses.replace(config, block=block, **{name: getattr(recorded, name) for name in SHAPE})


def _finished(place: Path) -> TrainConfig:
    """What a finished run recorded."""
    source = RunFolder(place)
    if not source.config.exists() or not source.model.exists():
        raise ValueError(
            f"--init-from {place} is no finished run: it has no config.json and weights. Nor is it a folder of "
            "transformers', whose config.json has a model_type."
        )
    if source.factors.exists():
        raise ValueError(f"--init-from {place} was compressed, and factors are not trained on; give its source.")
    _tie.check(source)
    recorded = _recorded.read_config(source.config, TrainConfig)
    if recorded.lora is not None:
        raise ValueError(
            f"--init-from {place} has adapters. What spectrain export writes of it has them merged; give that folder."
        )
    return recorded


def _with_tokenizer(config: TrainConfig) -> TrainConfig:
    """With the size of the tokenizer that ``--tokenizer`` names; as it is where one is to be trained."""
    if config.tokenizer in ("bpe", "bytes"):
        return config
    file = pretrained.tokenizer_file(config.tokenizer)
    size = data.load_tokenizer(file, exact=False).vocabulary_size
    if config.vocabulary not in (size, TrainConfig().vocabulary):
        raise ValueError(f"--vocabulary {config.vocabulary} differs from the {size} tokens of {file}; leave it out.")
    return dataclasses.replace(config, vocabulary=size)


def tokenizer_file(config: TrainConfig, folder: RunFolder, *, resuming: bool) -> Path | None:
    """The tokenizer that the weights know; None where one is to be trained."""
    if resuming:
        return folder.tokenizer
    source = None if config.init_from is None else Path(config.init_from)
    if source is not None and not pretrained.is_pretrained(source):
        return RunFolder(source).tokenizer
    return None if config.tokenizer in ("bpe", "bytes") else pretrained.tokenizer_file(config.tokenizer)


def keep_generation(config: TrainConfig, folder: RunFolder) -> None:
    """Keep what came with the model that says how text is drawn from it, for those that it is exported to."""
    file = None if config.init_from is None else Path(config.init_from) / pretrained.GENERATION
    if file is not None and file.is_file():
        said = read_object(file, what="what came with the model", constants=NOT_FINITE)
        write_json(folder.path / pretrained.GENERATION, said)


def load_first_weights(model: torch.nn.Module, config: TrainConfig, folder: RunFolder) -> None:
    """Put in the weights to begin with, unless the run has a checkpoint, which holds all that matters."""
    if config.init_from is None or _checkpoint.every(folder.checkpoints):
        return
    place = Path(config.init_from)
    if pretrained.is_pretrained(place):
        pretrained.load_weights(model, place)
        return
    source = RunFolder(place).model
    try:
        safetensors.torch.load_model(model, str(source))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"--init-from: {source} cannot be loaded: {str(error).splitlines()[-1].strip()}") from None
