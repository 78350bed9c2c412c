"""Adapters of a language model's run: as its flags say, from a folder of peft's, and in such a folder at the end."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spectrain import data, nn
from spectrain.nn.internal import Family, config_of, family_for, read_adapter, write_adapter
from spectrain.train._jobs.model import build_model
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import RATIOS, TrainConfig

FOLDER = "adapter"
"""Where a run leaves them."""


def put_in(model: nn.LanguageModel, config: TrainConfig, folder: RunFolder | None = None) -> None:
    """Freeze the model and put adapters in, where ``--lora`` or ``--lora-from`` says so, with their first weights.

    Without a run ``folder``, or where it has a checkpoint, weights are still to come. Raises ``ValueError`` for a model
    that no family of transformers' is, whose adapters could not be written, and for layers that it has not.
    """
    if config.lora is None:
        return
    first = folder is not None and not _checkpoint.every(folder.checkpoints)
    if first:  # a run that goes on keeps what it has written
        _check_new(model, config)
    _family(model, config)
    try:
        nn.models.adapt(
            model,
            rank=config.lora,
            alpha=config.lora_alpha,
            layers=config.lora_layers or None,
            generator=data.streams.generator(config.seed, "adapters"),
        )
    except ValueError as error:
        raise ValueError(f"--lora-layers: {str(error).removeprefix('adapt: ')}") from None
    if config.lora_from is not None and first:
        found = read_adapter(Path(config.lora_from), family=_family(model, config), depth=config.depth)
        _check_shapes(model, found.weights, config.lora_from)
        model.load_state_dict(found.weights, strict=False)


def _check_new(model: nn.LanguageModel, config: TrainConfig) -> None:
    """Refuse rates of what stays as it is, and more numbers than the layers themselves have."""
    for name in RATIOS:
        config.require(getattr(config, name) in (None, 1.0), name, "left out with adapters, beside which nothing moves")
    linear = (layer for layer in model.blocks.modules() if isinstance(layer, torch.nn.Linear))
    most = max(min(layer.weight.shape) for layer in linear)
    own = config.lora_from is not None or (config.lora or 0) <= most
    config.require(own, "lora", f"at most {most}, the rank of the largest layer of a block")


def inherit(config: TrainConfig) -> TrainConfig:
    """The configuration with rank, alpha and layers of the folder that ``--lora-from`` names.

    Called once the shape of ``--init-from`` is known. ``ValueError`` for flags that ask for others, by name.
    """
    if config.lora_from is None:
        return config
    family = _known_family(config)
    found = read_adapter(Path(config.lora_from), family=family, depth=config.depth)
    there = {"lora": found.rank, "lora_alpha": found.alpha, "lora_layers": found.layers}
    for name, value in there.items():
        asked = getattr(config, name)
        same = set(asked) == set(value) if isinstance(asked, tuple) and isinstance(value, tuple) else asked == value
        if asked not in (None, ()) and not same:
            flag, source = f"--{name.replace('_', '-')}", f"--lora-from {config.lora_from}"
            raise ValueError(f"{flag} {asked} differs from the {value} of {source}. Leave the flag out.")
    return dataclasses.replace(config, lora=found.rank, lora_alpha=found.alpha, lora_layers=found.layers)


def leave(model: nn.LanguageModel, config: TrainConfig, folder: RunFolder) -> None:
    """Write the adapters, where there are any, as peft reads them."""
    if config.lora is not None:
        write_adapter(model, folder.path / FOLDER, base=str(config.init_from), family=config.family)


def _known_family(config: TrainConfig) -> Family:
    """That of the base, before there is a model; by the model itself where a run of ours does not say it."""
    with torch.device("meta"):
        return family_for(build_model(config.derive()[0], vocabulary=config.vocabulary), config.family)


def _family(model: nn.LanguageModel, config: TrainConfig) -> Family:
    """The family whose names the adapters get; ``ValueError`` where none can say what the model is."""
    try:
        family = family_for(model, config.family)
        config_of(model, family)
    except ValueError as error:
        raise ValueError(f"--lora: adapters of this model could not be written for peft: {error}") from None
    return family


def _check_shapes(model: nn.LanguageModel, weights: Mapping[str, Tensor], folder: str) -> None:
    own = model.state_dict()
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            raise ValueError(
                f"--lora-from {folder}: {name} is {tuple(tensor.shape)}, and the model has {tuple(own[name].shape)}: "
                "it is the adapter of another base."
            )
