"""What the optimizer remembers of each parameter; there from the start, so that every checkpoint is complete."""

from typing import Any

import torch
from torch import Tensor

from spectrain.optim._layout.held import count, crossing
from spectrain.optim._layout.spread import FLAT, spread_like
from spectrain.optim._step.settings import Settings
from spectrain.optim._variants.variant import Kept


def state_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of momentum and update: at least float32, so that 16-bit weights lose nothing."""
    return torch.promote_types(p.dtype, torch.float32)


def kept(settings: Settings) -> dict[str, Kept]:
    """Return the names of what is remembered of each parameter of a group, and what it is of."""
    if settings.algorithm == "adamw":
        return {"step": "count", "exp_avg": "entries", "exp_avg_sq": "entries"}
    return {"momentum_buffer": "entries", **settings.rule.keeps}


def kept_shape(kind: Kept, p: Tensor, settings: Settings) -> tuple[int, ...]:
    """Return the shape of what is remembered of a parameter."""
    if kind == "count":
        return ()
    return (sum(count(settings.shapes(p.shape), crossing)),) if kind == "lines" else tuple(p.shape)


def _zeros(kind: Kept, p: Tensor, settings: Settings, dtype: torch.dtype) -> Tensor:
    if kind == "entries":  # on the ranks as p is; AdamW's moments in memory as p too, for its fused kernel
        like = torch.preserve_format if settings.algorithm == "adamw" else torch.contiguous_format
        return torch.zeros_like(p, dtype=dtype, memory_format=like)
    return torch.zeros(kept_shape(kind, p, settings), dtype=dtype, device=p.device)


def _check_matrix(p: Tensor, settings: Settings) -> None:
    """Raise ValueError where something else than the matrix of the group stands in its place."""
    try:
        settings.matrix.check(p.shape)
    except ValueError as error:
        raise ValueError(
            f"Muon: a matrix of a group was replaced by a tensor of shape {tuple(p.shape)}, as DeepSpeed's ZeRO does. "
            f"{FLAT}"
        ) from error


def ready(state: dict[str, Any], p: Tensor, settings: Settings) -> dict[str, Any]:
    """Return the state on the device, in the dtype and on the ranks where ``p`` is now; models move after the start.

    A parameter that was never moved gets zeros; AdamW's state is that of ``torch.optim.AdamW``. What is kept of
    entries lies on the ranks as ``p`` does, counts and lines are whole on every rank.
    """
    if settings.algorithm == "muon" and "momentum_buffer" not in state:
        _check_matrix(p, settings)
    own = p.dtype if settings.algorithm == "adamw" else state_dtype(p)
    for name, kind in kept(settings).items():
        dtype = torch.float32 if kind == "count" else own
        value = state[name] if name in state else _zeros(kind, p, settings, dtype)
        if value.device != p.device or value.dtype != dtype:
            value = value.to(p.device, dtype)
        state[name] = spread_like(value, p) if kind == "entries" else value
    return state
