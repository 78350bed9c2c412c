"""Adapters in the files of the package peft: ``adapter_config.json`` and ``adapter_model.safetensors``, out and in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from spectrain._files.read import NOT_FINITE, read_object
from spectrain._files.write import write_file, write_json
from spectrain.nn._hugging_face.config import family_for
from spectrain.nn._hugging_face.families import Family
from spectrain.nn._hugging_face.weights import module_names
from spectrain.nn._models.adapter import adapted
from spectrain.nn._models.language_model import LanguageModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_([AB])\.weight")
_OURS = re.compile(r"blocks\.(\d+)\.(.+)")
_IDLE = (
    "peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "megatron_core", "qalora_group_size",
    "init_lora_weights",
)  # fmt: skip
"""Keys that change no logit, or that are read here. All others have to say no."""
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base as it was."""


@dataclass(frozen=True)
class AdapterFile:
    """What a folder of peft's holds, under our names."""

    rank: int
    alpha: float
    layers: tuple[str, ...]
    """Last names of the layers that are adapted, in every block."""
    weights: dict[str, Tensor]


def write_adapter(model: LanguageModel, folder: Path, *, base: str, family: str | None = None) -> Path:
    """Write the adapters of ``model`` so that peft puts them on ``base``, a folder of transformers'."""
    names = module_names(family_for(model, family))
    layers = dict(adapted(model))
    one = next(iter(layers.values()))
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for part in ("A", "B"):
            weight = getattr(layer, f"lora_{part}").weight.detach()
            tensors[f"{_theirs(name, names)}.lora_{part}.weight"] = weight.contiguous().clone()
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({_theirs(name, names).rpartition(".")[2] for name in layers})
    write_json(folder / CONFIG, _config(one.rank, one.alpha, targets, base))
    write_file(
        folder / WEIGHTS,
        lambda temporary: safetensors.torch.save_file(tensors, str(temporary), metadata={"format": "pt"}),
    )
    return folder


def _config(rank: int, alpha: float, targets: list[str], base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _theirs(name: str, names: Mapping[str, str]) -> str:
    found = _OURS.fullmatch(name)
    assert found
    return f"base_model.model.model.layers.{found[1]}.{names[found[2]]}"


def read_adapter(folder: Path, *, family: Family, depth: int) -> AdapterFile:
    """The adapters in a folder that peft wrote, for a model of ``family`` with ``depth`` blocks.

    Raises ``ValueError`` naming the key of the configuration that is not plain LoRA, the tensor that has no place, or
    the layer that only some blocks adapt.
    """
    config = _read_config(folder)
    rank, alpha = config.get("r"), config.get("lora_alpha", 8)
    if not isinstance(rank, int) or rank < 1 or isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise ValueError(f"{folder / CONFIG}: r and lora_alpha must be numbers, got {rank!r} and {alpha!r}.")
    names = {theirs: ours for ours, theirs in module_names(family).items()}
    weights: dict[str, Tensor] = {}
    try:
        held = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from None
    for name, tensor in held.items():
        found = _NAME.fullmatch(name)
        if not found or found[2] not in names or int(found[1]) >= depth:
            raise ValueError(f"{folder / WEIGHTS}: {name} is no adapter of a linear layer in the blocks of this model.")
        weights[f"blocks.{found[1]}.{names[found[2]]}.lora_{found[3]}.weight"] = tensor.to(torch.float32)
    return AdapterFile(rank, float(alpha), _layers(weights, folder, depth), weights)


def _read_config(folder: Path) -> dict[str, Any]:
    """The configuration, once nothing in it asks for more than plain LoRA."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} has no {CONFIG}; give the folder that peft's save_pretrained wrote.")
    config: dict[str, Any] = read_object(folder / CONFIG, what="peft's adapter_config.json", constants=NOT_FINITE)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder / CONFIG}: peft_type must be LORA, got {config.get('peft_type')!r}.")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise ValueError(
            f"{folder / CONFIG}: init_lora_weights {config['init_lora_weights']!r} changes the weights of the base, "
            "which are not in the folder; save with path_initial_model_for_weight_conversion, or merge there."
        )
    for key, value in config.items():
        if key not in _IDLE and value and not (key == "bias" and value == "none"):
            raise ValueError(f"{folder / CONFIG}: {key} = {value!r} is more than plain LoRA, and is not known here.")
    return config


def _layers(weights: Mapping[str, Tensor], folder: Path, depth: int) -> tuple[str, ...]:
    """The last names of adapted layers; each must be adapted in every block, by an A and a B."""
    parts = {name.split(".", 2)[2].removesuffix(".weight")[: -len(".lora_A")] for name in weights}
    for part in sorted(parts):
        for i in range(depth):
            for letter in "AB":
                if f"blocks.{i}.{part}.lora_{letter}.weight" not in weights:
                    raise ValueError(f"{folder / WEIGHTS}: {part} of block {i} has no lora_{letter}, others have one.")
    return tuple(sorted(part.rpartition(".")[2] for part in parts))
