"""Gradient clipping that leaves Muon's matrices alone."""

import functools
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from spectrain._arrays.spread import is_spread
from spectrain.optim._layout.spread import local, whole


class GradientNorms(NamedTuple):
    """Frobenius norms before clipping, and what the gradients in scope were multiplied by."""

    total: Tensor
    muon: Tensor
    adamw: Tensor
    coefficient: Tensor


def clip_grad_norm_(optimizer: Optimizer, max_norm: float | int, *, scope: str = "adamw") -> GradientNorms:
    """Scale the gradients of AdamW's parameters so that their common norm is at most ``max_norm``, in place.

    The gradients of Muon's matrices (and of ``"sign"`` and ``"rows"``) are measured but not changed. msign
    does not see the scale of its argument, so clipping cannot shrink a Muon update; a factor that changes
    from step to step would only reweight the steps inside the momentum, by an absolute threshold that means
    nothing there. And matrices do not count in the norm that decides AdamW's factor, whose share of the
    clipping would otherwise depend on a quantity that its own updates do not.

    ``scope="all"`` is the global clipping of other trainers, for runs that must follow them: one factor, from the norm
    of all gradients, for all gradients. Where it touches Muon's, a warning says the factor, which is the weight that
    this step's gradient keeps in the momentum; it reads that number, which is one synchronisation.

    One reading pass over the gradients, no synchronisation; the norms of sharded ones are reduced. Where the norm is
    NaN or infinite nothing is scaled, so that the step that follows can name the culprit. Raises ValueError unless
    ``max_norm`` > 0 and ``scope`` is one of the two.

    >>> head = torch.nn.Parameter(torch.zeros(4))
    >>> head.grad = torch.full((4,), 3.0)
    >>> from spectrain.optim import Muon
    >>> norms = clip_grad_norm_(Muon([{"params": [head], "algorithm": "adamw"}]), max_norm=1.5)
    >>> norms.adamw.item(), norms.coefficient.item(), head.grad.tolist()
    (6.0, 0.25, [0.75, 0.75, 0.75, 0.75])
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be positive, got {max_norm}.")
    if scope not in ("adamw", "all"):
        raise ValueError(f"clip_grad_norm_: scope must be 'adamw' or 'all', got {scope!r}.")
    if not all("algorithm" in group for group in optimizer.param_groups):
        raise TypeError(
            f"clip_grad_norm_: needs a spectrain.optim.Muon, got {type(optimizer).__name__}, whose groups do not say "
            "what is Muon's. Use torch.nn.utils.clip_grad_norm_."
        )
    adamw, matrices = _grads(optimizer, adamw=True), _grads(optimizer, adamw=False)
    norm = _norm(adamw)
    rest = _norm(matrices).to(norm.device)
    total = torch.hypot(norm, rest)
    counted = total if scope == "all" else norm
    # inf as the limit means no clipping: compare first, so that inf / inf is never taken.
    coefficient = torch.where(counted.isfinite() & (counted > max_norm), max_norm / counted, 1.0)
    if scope == "all" and matrices and coefficient < 1:
        warnings.warn(
            f"clip_grad_norm_: scope='all' multiplied the gradients of Muon's matrices by {float(coefficient):.3g}. "
            "msign does not see that, the momentum does: this step counts so much less in it. Leave scope out to clip "
            "AdamW's gradients only.",
            stacklevel=2,
        )
    for grad in adamw + (matrices if scope == "all" else []):
        local(grad).mul_(coefficient.to(grad.device))
    return GradientNorms(total, rest, norm, coefficient)


def _grads(optimizer: Optimizer, *, adamw: bool) -> list[Tensor]:
    return [
        p.grad
        for group in optimizer.param_groups
        if (group["algorithm"] == "adamw") == adamw
        for p in group["params"]
        if p.grad is not None
    ]


def _norm(grads: list[Tensor]) -> Tensor:
    """Frobenius norm of all of them together, in float32 or wider."""
    if not grads:
        return torch.zeros(())
    wide = torch.promote_types(functools.reduce(torch.promote_types, {g.dtype for g in grads}), torch.float32)
    norms = _norms(grads, torch.float64 if grads[0].device.type == "cuda" else None)
    if grads[0].device.type == "cpu" and any(bool(norm.isinf()) for norm in norms):
        norms = _norms(grads, torch.float64)  # eight times as slow there, and seldom needed
    dtype = torch.promote_types(wide, norms[0].dtype)
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device, dtype) for n in norms])).to(wide)


def _norms(grads: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """One norm each, of a sharded gradient reduced over its ranks.

    Squares of entries above 1.8e19 leave float32: in float64 such gradients have a norm and can be clipped.
    """
    norms = [whole(norm) for norm in _norms_of_kinds(grads, dtype)]
    return [norm.to(torch.promote_types(norm.dtype, torch.float32)) for norm in norms]


def _norms_of_kinds(grads: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """One norm each, one call for each mesh and one for plain tensors: under tensor parallelism there are both."""
    kinds: dict[Any, list[int]] = {}
    for i, grad in enumerate(grads):
        kinds.setdefault(grad.device_mesh if is_spread(grad) else None, []).append(i)
    found: dict[int, Tensor] = {}
    for members in kinds.values():
        found |= zip(members, torch._foreach_norm([grads[i] for i in members], 2, dtype), strict=True)
    return [found[i] for i in range(len(grads))]
