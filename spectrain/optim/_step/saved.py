"""What a saved state must hold to be taken: settings in range, tensors of the right names, kinds and values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from spectrain.optim._layout.spread import local
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.state import kept


def check_saved(
    saved: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> None:
    """Raise ValueError naming the group and the setting where a saved group cannot be meant."""
    for i, (group, here) in enumerate(zip(saved, ours, strict=True)):
        missing = sorted(key for key in set(here) & set(defaults) if key not in group)
        try:
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}.")
            Settings.of(group).check_tensors()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(
                f"Muon: the saved state is damaged in group {i}: {str(error) or 'nested too deeply'}"
            ) from error


def find_damage(
    state: Mapping[Any, Any], saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> str:
    """The first tensor of a state that the step could not use, in words; empty where there is none."""
    for theirs, ours in zip(saved, groups, strict=True):
        names = list(kept(Settings.of(ours)))
        for index, name in zip(theirs["params"], ours["param_names"], strict=True):
            entry = state.get(index, {})
            lost = [key for key in names if entry and not isinstance(entry.get(key), Tensor)]
            if lost:
                return f"{name} has no tensor {', '.join(lost)}"
            for key in names if entry else ():
                if not _usable(key, entry[key]):
                    return f"{name}.{key} is not finite, or negative where that is impossible"
    return ""


def _usable(key: str, value: Tensor) -> bool:
    """Whether all entries on this rank are finite, and squares and counts not negative; reads two values."""
    value = local(value)  # of which there may be nothing here
    if not value.numel() or value.is_meta:
        return True
    low, high = (float(end) for end in value.detach().aminmax())
    return math.isfinite(low) and math.isfinite(high) and (low >= 0 or key in ("momentum_buffer", "exp_avg"))
