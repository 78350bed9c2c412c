"""The AdamW half: torch's own functional AdamW, on this optimizer's state."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from spectrain.optim._step.settings import Settings
from spectrain.optim._step.squares import limit_squares

FUSED = ("cpu", "cuda", "mps", "xpu")
_TINY = torch.finfo(torch.float32).tiny  # in place of eps=0, which makes 0 / 0 of an entry that had no gradient yet


def adamw_step(params: list[Tensor], grads: list[Tensor], settings: Settings, states: list[dict[str, Any]]) -> None:
    """Do one step of ``torch.optim.AdamW``, with its state keys ``step``, ``exp_avg`` and ``exp_avg_sq``.

    On devices that have it this is the fused kernel, one pass over the memory.
    """
    beta1, beta2 = settings.betas
    grads = limit_squares(grads, settings)
    aligned = all(
        _is_aligned(p, g, s["exp_avg"], s["exp_avg_sq"]) for p, g, s in zip(params, grads, states, strict=True)
    )
    compiling = torch.compiler.is_compiling()  # a graph takes the formula, and fuses it itself
    adamw(
        params,
        grads,
        [s["exp_avg"] for s in states],
        [s["exp_avg_sq"] for s in states],
        [],
        [s["step"] for s in states],
        foreach=False,
        fused=not compiling and aligned and all(p.device.type in FUSED for p in params),
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        eps=max(settings.eps, _TINY),
        maximize=settings.maximize,
    )


def _is_aligned(*tensors: Tensor) -> bool:
    """Whether equal places in memory are equal entries, as the fused kernel assumes without looking.

    They are not after ``model.to(memory_format=...)``, or where a state comes from weights laid out otherwise.
    """
    if all(tensor.is_contiguous() for tensor in tensors):
        return True
    return len({tensor.stride() for tensor in tensors}) == 1
