"""msign of matrices whose long side is spread over ranks: only the small Gram matrices travel."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.scale import times_power_of_two
from spectrain.approx import Schedule
from spectrain.approx.internal import Steps
from spectrain.matfun.internal import coefficients, growth_by_gram, kept_within, multiplier, restarts, safe_schedule

Reduce = Callable[[Tensor, str], Tensor]


class Slab(NamedTuple):
    """What this rank holds of one matrix (empty: nothing), and how it counts.

    ``short`` is the short side. ``tall``: the parts are rows of a tall matrix, else columns of a wide one.
    ``counts``: this copy's part goes into the sum; of several copies one does.
    """

    part: Tensor
    short: int
    tall: bool
    counts: bool
    schedule: Schedule


def cuts(schedule: Schedule, dtype: torch.dtype) -> tuple[int, ...] | None:
    """Return before which polynomials the Gram matrix is summed anew; None where that would not be safe."""
    return restarts(_safe(schedule, dtype), reduced_dtype(dtype))


def _safe(schedule: Schedule, dtype: torch.dtype) -> Schedule:
    return safe_schedule(schedule, reduced_dtype(dtype))


def reduced_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the Gram matrices: float32 or wider."""
    return torch.promote_types(dtype, torch.float32)


def reduced_signs(slabs: Sequence[Slab], reduce: Reduce) -> list[Tensor]:
    r"""Return this rank's part of msign(X) for each matrix X, of which every rank holds a part of the long side.

    With G = X^T X = sum_r X_r^T X_r, reduced over ranks, an odd composition is p(X) = X q(G), and q(G) needs k x k
    products only (Gram Newton-Schulz, Dao-AILab, 2026; ``matfun._gram``). G is summed anew where ``matfun._restarts``
    finds it necessary. In float32 or wider, whatever the schedule was designed for. ``reduce(tensor, "sum" | "max")``
    combines over ranks. Rounding changes the result by about u kappa(X)^2, u the unit roundoff.
    """
    if not slabs:
        return []
    X = _unit([slab.part for slab in slabs], reduce)
    segments = [_segments(slab, part.dtype) for slab, part in zip(slabs, X, strict=True)]
    for turn in range(max(map(len, segments))):
        active = [i for i, found in enumerate(segments) if turn < len(found)]
        grams = _summed([X[i] for i in active], [slabs[i] for i in active], reduce)
        for i, G in zip(active, grams, strict=True):
            exponent = (torch.frexp(G.trace())[1] + 1).div(2, rounding_mode="floor")
            upper = None if turn else slabs[i].schedule.interval[1]
            if upper is not None:  # the bound on the norm wants matrices of Frobenius norm near 1
                G, X[i] = times_power_of_two(G, -2 * exponent), times_power_of_two(X[i], -exponent)
            last = turn == len(segments[i]) - 1
            kept = G.clone() if last else None  # the multiplier uses G up
            R = multiplier(G[None], segments[i][turn], upper=upper)[0]
            if kept is not None:
                # All ranks have the same G and R to the last bit, so all decide alike.
                R = R * kept_within(growth_by_gram(R, kept), slabs[i].schedule.error).to(R.dtype)
            if X[i].numel():
                X[i] = X[i] @ R if slabs[i].tall else R @ X[i]
    return X


def _segments(slab: Slab, dtype: torch.dtype) -> list[Steps]:
    """The odd coefficients of the polynomials from one summation to the next."""
    polynomials = coefficients(_safe(slab.schedule, dtype))
    stops = [*(cuts(slab.schedule, dtype) or ()), len(polynomials)]
    return [polynomials[start:stop] for start, stop in itertools.pairwise([0, *stops])]


def _unit(parts: Sequence[Tensor], reduce: Reduce) -> list[Tensor]:
    """Parts times a power of two, the same on all ranks, that brings the largest entry of each matrix near 1."""
    wide = [part.to(reduced_dtype(part.dtype)) for part in parts]
    largest = torch.stack(
        [part.abs().amax().double() if part.numel() else part.new_zeros((), dtype=torch.float64) for part in wide]
    )
    exponents = torch.frexp(reduce(largest, "max"))[1]
    return [times_power_of_two(part, -k) for part, k in zip(wide, exponents, strict=True)]


def _summed(X: Sequence[Tensor], slabs: Sequence[Slab], reduce: Reduce) -> list[Tensor]:
    """Gram matrices of the whole matrices, all in one reduction for each dtype."""
    own = [_gram(part, slab) for part, slab in zip(X, slabs, strict=True)]
    found: list[Tensor] = list(own)
    for dtype in dict.fromkeys(G.dtype for G in own):
        members = [i for i, G in enumerate(own) if G.dtype == dtype]
        total = reduce(torch.cat([own[i].flatten() for i in members]), "sum")
        pieces = total.split([own[i].numel() for i in members])
        for i, piece in zip(members, pieces, strict=True):
            found[i] = piece.view_as(own[i])
    return found


def _gram(part: Tensor, slab: Slab) -> Tensor:
    if not part.numel() or not slab.counts:
        return part.new_zeros(slab.short, slab.short)
    return part.mT @ part if slab.tall else part @ part.mT
