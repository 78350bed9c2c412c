"""What the optimizer remembers of each parameter; there from the start, so that every checkpoint is complete."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._layout.spread import spread_like
from spectrain.optim._step.lines import lines


def state_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of momentum and update: at least float32, so that 16-bit weights lose nothing."""
    return torch.promote_types(p.dtype, torch.float32)


def kinds(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what is remembered of each parameter of a group."""
    if group["algorithm"] == "adamw":
        return ("step", "exp_avg", "exp_avg_sq")
    extra = {"adam": ("step", "exp_avg_sq"), "normuon": ("line_second_moment",)}
    return ("momentum_buffer", *extra.get(group.get("variant", "plain"), ()))


def fresh(p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a parameter that was never moved; AdamW's is that of ``torch.optim.AdamW``.

    It lies on the ranks as ``p`` does, except for the line averages of ``variant="normuon"``, which every rank has.
    """
    step = torch.zeros((), dtype=torch.float32, device=p.device)
    if group["algorithm"] == "adamw":
        moments = [torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2)]
        return {"step": step, "exp_avg": moments[0], "exp_avg_sq": moments[1]}
    state = {"momentum_buffer": _wide_zeros(p)}
    if group.get("variant") == "adam":
        state |= {"step": step, "exp_avg_sq": _wide_zeros(p)}
    if group.get("variant") == "normuon":
        state["line_second_moment"] = torch.zeros(count_lines(p, group), dtype=state_dtype(p), device=p.device)
    return state


def count_lines(p: Tensor, group: Mapping[str, Any]) -> int:
    """Return the number of averages that ``variant="normuon"`` keeps of a parameter."""
    return sum(lines(Matrix.from_dict(group["matrix"]).shapes(p.shape)))


def _wide_zeros(p: Tensor) -> Tensor:
    return torch.zeros_like(p, dtype=state_dtype(p), memory_format=torch.contiguous_format)


def ready(state: dict[str, Any], p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state on the device, in the dtype and on the ranks where ``p`` is now; models move after the start."""
    if not state:
        state.update(fresh(p, group))
    for key, value in state.items():
        dtype = torch.float32 if key == "step" else p.dtype if group["algorithm"] == "adamw" else state_dtype(p)
        if value.device != p.device or value.dtype != dtype:
            state[key] = value.to(p.device, dtype)
        if key not in ("step", "line_second_moment"):
            state[key] = spread_like(state[key], p)
    return state
