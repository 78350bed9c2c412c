"""Parameter groups as users write them, made complete."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def complete(group: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a complete group: its own settings, else those of the optimizer for its algorithm."""
    settings = {**defaults, **group}
    if group["algorithm"] in ("sign", "rows") and settings["decay"] == "spectral" and "decay" not in group:
        settings["decay"] = "decoupled"  # of matrices only
    if group["algorithm"] == "adamw":
        settings.pop("momentum", None)  # in a group it is a scheduler's, and beta1
        for name in ("lr", "weight_decay", "betas", "eps"):
            special = defaults[f"adamw_{name}"]
            settings[name] = group.get(name, defaults.get(name) if special is None else special)
    return settings


def split_names(params: Any, index: int) -> tuple[list[Tensor], list[str]]:
    """Parameters and their names; those without get ``group0.3``, so that every message can name one."""
    if isinstance(params, set):
        raise TypeError("Muon: a set of parameters has no fixed order; give a list.")
    items = [params] if isinstance(params, Tensor) else list(params)
    tensors = [item[1] if isinstance(item, tuple) else item for item in items]
    names = [item[0] if isinstance(item, tuple) else f"group{index}.{i}" for i, item in enumerate(items)]
    return tensors, names
