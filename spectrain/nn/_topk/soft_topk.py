"""Smooth top-k: k ones out of n, with a gradient."""

import operator
from typing import Literal, get_args

import torch
from torch import Tensor

from spectrain.nn._topk import subset, threshold

Kind = Literal["laplace", "exp", "sigmoid", "gradient", "iterative"]
_THRESHOLD = {
    "laplace": threshold.laplace,
    "exp": threshold.clipped_exponential,
    "sigmoid": threshold.sigmoid,
}
_LARGEST = 10**8


def soft_topk(
    x: Tensor,
    k: int | float | Tensor,
    *,
    temperature: int | float | Tensor = 1.0,
    kind: Kind = "laplace",
    dim: int = -1,
) -> Tensor:
    """p in [0, 1]^n with sum k, in the order of ``x``; the indicator of the k largest as the temperature goes to 0.

    ============ ================================================= ================== ==========
    kind         p, with z = x / temperature                       k                  cost
    ============ ================================================= ================== ==========
    laplace      f(z - t), f the distribution function of Laplace  real, 0 < k < n    a sort
    exp          min(1, e^(z - t))                                 real, 0 < k < n    a sort
    sigmoid      1 / (1 + e^(t - z))                               real, 0 < k < n    a sort, 7 n
    gradient     gradient of log E_k(e^z), E_k the k-th            whole, 0 < k < n,  n min(k, log^2 n)
                 elementary symmetric polynomial                   n k <= 1e8
    iterative    k times p += softmax((1 - p) (z - min z))         whole, 0 < k < n,  n k
                                                                   n k <= 1e8
    ============ ================================================= ================== ==========

    The first three choose t such that the sum is k: |sum p - k| <= 1e-12 k in float64 for temperatures from 1e-12 to
    1e6 and n to a million. All work in float64 inside and round p to the dtype of ``x``. At k = 1 ``exp``,
    ``gradient`` and ``iterative`` are softmax; ``laplace`` is only where no softmax value exceeds 1/2. Entries of
    ``iterative`` may exceed 1, and it does not keep the order where they do; it measures scores from the lowest, so
    that differences below 1e-16 of their spread are lost.

    ``x`` is a floating tensor of any shape, ``dim`` the dimension to choose from. ``k`` and ``temperature`` are numbers
    or, for one value a row, tensors that broadcast to the other dimensions; gradients flow into both. Entries of
    -inf get 0, of +inf 1, and count: k must lie between the number of +inf and n minus the number of -inf. A row with
    a NaN is NaN. Differentiable twice, forward and backward, under vmap and torch.compile.

    Raises ``TypeError`` for an ``x`` that is not floating and a ``k`` that must be whole and is not, ``ValueError`` for
    k and temperature out of range. Under vmap and compile, where values cannot be looked at, such rows are NaN.

    Source: Su Jianlin, article 10373 (kexue.fm/archives/10373); the Laplace kind is also LapSum, Struski et al., ICML
    2025, arXiv 2503.06242.

    >>> x = torch.tensor([3.0, -1.0, 2.0, 0.5])
    >>> p = soft_topk(x, 2, temperature=0.1)
    >>> p.round(decimals=3).tolist()
    [1.0, 0.0, 1.0, 0.0]
    >>> soft_topk(x, 2.5).sum().item()
    2.5
    >>> torch.testing.assert_close(soft_topk(x, 1, kind="exp"), x.softmax(0))
    """
    if not x.is_floating_point():
        raise TypeError(f"soft_topk: x must be a floating tensor, got {x.dtype}; convert it with x.float().")
    if x.dim() == 0:
        raise ValueError("soft_topk: x is a single number; give a vector, or a batch of them, to choose from.")
    if kind not in get_args(Kind):
        raise ValueError(f"soft_topk: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}.")
    rows = x.movedim(dim, -1)
    if not rows.shape[-1]:
        raise ValueError(f"soft_topk: nothing to choose from, x has shape {tuple(x.shape)} and size 0 along dim={dim}.")
    scores = rows.double()
    heat = _row_values(temperature, scores, "temperature")
    if kind in _THRESHOLD:
        count = _row_values(k, scores, "k")
        fits = _check(scores, count, heat)
        p = _THRESHOLD[kind](scores, count, heat)
    else:
        whole = _whole_number(k, kind)
        if whole * rows.shape[-1] > _LARGEST:
            raise ValueError(
                f"soft_topk: kind={kind!r} needs n k of at most 1e8, got {rows.shape[-1]} x {whole}. "
                "For more use 'laplace', 'exp' or 'sigmoid', which cost a sort."
            )
        fits = _check(scores, _row_values(whole, scores, "k"), heat)
        p = _add_softmaxes(scores, whole, heat) if kind == "iterative" else subset.subset_shares(scores, whole, heat)
    return (p if fits is None else torch.where(fits, p, torch.nan)).to(x.dtype).movedim(-1, dim)


def _add_softmaxes(x: Tensor, k: int, temperature: Tensor) -> Tensor:
    """k times p += softmax((1 - p) (z - min z)); infinite scores are decided beforehand."""
    finite, taken = x.isfinite(), x == torch.inf
    known = torch.where(finite, x, 0)
    # Near the largest number x - min x, and k times that, would be infinite: such rows are measured in a larger unit.
    unit = torch.where(known.detach().abs().amax(-1, keepdim=True) > 2.0**900, 2.0**-64, 1.0)
    lowest = torch.where(finite, x * unit, torch.inf).amin(-1, keepdim=True)
    z = torch.where(finite, known * unit - lowest, 0)
    p = torch.zeros_like(x)
    for i in range(k):
        pulled = (1 - p) * z
        best = torch.where(finite, pulled, -torch.inf).amax(-1, keepdim=True).detach()
        share = torch.where(finite, threshold.scale(pulled, best, temperature * unit), -torch.inf).softmax(-1)
        p = torch.where(i < k - taken.sum(-1, keepdim=True), p + share, p)
    return torch.where(taken, 1, torch.where(x.isnan(), torch.nan, p))


def _row_values(value: int | float | Tensor, scores: Tensor, name: str) -> Tensor:
    rows = scores.shape[:-1]
    if not isinstance(value, Tensor):
        return scores.new_full((*rows, 1), float(value))
    try:
        return value.to(device=scores.device, dtype=scores.dtype).broadcast_to(rows).unsqueeze(-1)
    except RuntimeError:
        raise ValueError(
            f"soft_topk: {name} must be a number or broadcast to the shape {tuple(rows)} of x without its dim, "
            f"got shape {tuple(value.shape)}."
        ) from None


def _whole_number(k: int | float | Tensor, kind: str) -> int:
    try:
        return operator.index(k)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"soft_topk: kind={kind!r} needs k as a whole number, the same for all rows, got {k!r}. "
            "Real or several k are for 'laplace', 'exp' and 'sigmoid'."
        ) from None


def _check(x: Tensor, k: Tensor, temperature: Tensor) -> Tensor | None:
    """The rows that have an answer, None for all; raise for k and temperature out of range where one can look."""
    lowest, highest = x.detach().aminmax(dim=-1, keepdim=True)
    hot = (temperature > 0) & (temperature < torch.inf)
    inside = (k > 0) & (k < x.shape[-1]) & (lowest > -torch.inf) & (highest < torch.inf)
    look = not torch.compiler.is_compiling()
    try:
        if look and bool((hot & inside).all()):
            return None
    except RuntimeError:  # vmap: one row knows nothing of the others
        look = False
    least, most = (x == torch.inf).sum(-1, keepdim=True), (x != -torch.inf).sum(-1, keepdim=True)
    fits = (least < k) & (k < most)
    if look and not hot.all():
        raise ValueError(
            f"soft_topk: temperature must be positive and finite, got {_first_value(temperature, ~hot):g}."
        )
    if look and not fits.all():
        low, high = _first_value(least, ~fits), _first_value(most, ~fits)
        raise ValueError(
            f"soft_topk: k must lie strictly between {low:g} and {high:g} (n = {x.shape[-1]}; entries of +inf are "
            f"chosen, of -inf never), got {_first_value(k, ~fits):g}."
        )
    return fits & hot & ~lowest.isnan()


def _first_value(values: Tensor, where: Tensor) -> float:
    return float(values[where][0])
