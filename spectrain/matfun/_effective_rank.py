"""Effective rank: how many singular values a matrix seems to have, without a threshold."""

from collections.abc import Callable

import torch
from torch import Tensor

from spectrain.matfun._derivative.differences import widened
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located, refusal
from spectrain.matfun._entry.input import Array, Real, entered, scalar_door
from spectrain.matfun._entry.scale import recording

_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "stable": lambda s: s.square().sum(-1) / s[..., 0].square(),
    "intrinsic": lambda s: s.sum(-1) / s[..., 0],
    "participation": lambda s: s.sum(-1).square() / s.square().sum(-1),
}


@located("X")
def effective_rank(X: Array, *, kind: str = "entropy", power: Real = 1) -> Array:
    """Return an effective rank of X, between 1 and the rank, equal to it where all nonzero singular values are equal.

    ``kind`` is one of (article 10847, kexue.fm/archives/10847), s the singular values:

    - "entropy": exp(H(p)), p = s^power / sum s^power (Roy and Vetterli, EUSIPCO 2007; ``power=2`` in Moonlight);
    - "stable": sum s^2 / max s^2 = ||X||_F^2 / ||X||_2^2 (Rudelson and Vershynin, J. ACM 54, 2007);
    - "intrinsic": sum s / max s = nuclear over spectral norm (Tropp, 2015);
    - "participation": (sum s)^2 / sum s^2.

    A scale changes nothing, a zero matrix gives 0. By singular values in float64, relative error about 1e-15 k; float64
    for float64 input, else float32. Shapes: X (*batch, m, n) real or complex, the result (*batch). Differentiable by
    torch's derivative of singular values, to which an exact zero among them adds nothing. ValueError for another kind
    or a power that is not positive and finite; TypeError and ValueError for what is not a matrix, torch's LinAlgError
    for NaN and infinite entries. Cost: one SVD without vectors.

    >>> [round(float(effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0])), kind=kind)), 6)
    ...  for kind in ("entropy", "stable", "intrinsic", "participation")]
    [2.0, 2.0, 2.0, 2.0]
    """
    if kind != "entropy" and kind not in _KINDS:
        raise ValueError(f'effective_rank: kind must be "entropy", {", ".join(_KINDS)}, got {kind!r}')
    if not 0 < power < float("inf") or (power != 1 and kind != "entropy"):
        raise ValueError(f'effective_rank: power={power} must be positive and finite, and goes with kind="entropy"')
    numbers = scalar_door(X)
    X, _ = entered(X, "effective_rank", embed=False)
    if min(X.shape[-2:]) == 0:
        return numbers(torch.zeros(X.shape[:-2], dtype=_answer(X.dtype), device=X.device))
    S = torch.linalg.svdvals(_unit(flat(X)))
    some = S[..., 0] > 0
    S = torch.where(some[..., None], S, 1.0)
    rank = _entropy(S / S[..., :1], power) if kind == "entropy" else _KINDS[kind](S)
    return numbers(torch.where(some, rank, 0.0).to(_answer(X.dtype)).reshape(X.shape[:-2]))


def _unit(X: Tensor) -> Tensor:
    """Return X with its largest entry at 1: an effective rank does not see the scale, squares would."""
    wide = widened(X)
    largest = wide.abs().amax((-2, -1), keepdim=True)
    hidden = recording() or torch._C._are_functorch_transforms_active()  # a graph, or vmap: no value can be read
    if not hidden and not bool(largest.isfinite().all()):
        raise refusal(X, "effective_rank")
    return wide / torch.where(largest > 0, largest, 1.0)


def _answer(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def _entropy(S: Tensor, power: Real) -> Tensor:
    """Return exp(H(p)) for singular values relative to the largest, H = log sum w - sum w log w / sum w, w = s^power.

    Weights that are zero are left out before any power or logarithm: their slope is that of nothing.
    """
    logs = power * torch.where(S > 0, S, 1.0).log()
    weights = torch.where(S > 0, logs.exp(), 0.0)
    total = weights.sum(-1)
    return (total.log() - (weights * logs).sum(-1) / total).exp()
