"""What the optimizer remembers of each parameter; there from the start, so that every checkpoint is complete."""

from typing import Any

import torch
from torch import Tensor


def state_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of momentum and update: at least float32, so that 16-bit weights lose nothing."""
    return torch.promote_types(p.dtype, torch.float32)


def fresh(p: Tensor, algorithm: str) -> dict[str, Tensor]:
    """Return the state of a parameter that was never moved; AdamW's is that of ``torch.optim.AdamW``."""
    if algorithm != "adamw":
        return {"momentum_buffer": torch.zeros(p.shape, dtype=state_dtype(p), device=p.device)}
    return {
        "step": torch.zeros((), dtype=torch.float32, device=p.device),
        "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
    }


def ready(state: dict[str, Any], p: Tensor, algorithm: str) -> dict[str, Any]:
    """Return the state on the device and in the dtype where ``p`` is now; models move after the optimizer is made."""
    if not state:
        state.update(fresh(p, algorithm))
    for key, value in state.items():
        dtype = torch.float32 if key == "step" else state_dtype(p) if algorithm != "adamw" else p.dtype
        if value.device != p.device or value.dtype != dtype:
            state[key] = value.to(p.device, dtype)
    return state
