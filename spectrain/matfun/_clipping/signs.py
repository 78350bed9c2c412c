"""mclip by matrix signs: products only, for a fixed price and without a bound."""

import math

import torch
from torch import Tensor

from spectrain._arrays.scale import power_of_two, times_power_of_two, to_unit
from spectrain.matfun._entry.batches import gather
from spectrain.matfun._iteration.design import schedule_for_steps, working_dtype
from spectrain.matfun._iteration.plain import gram, plain_iteration, product, start_for


def clip_by_signs(X: Tensor, lower: float, upper: float, *, steps: int) -> Tensor:
    """Return U clip(S) V^T of matrices (b, m, n), by msign of X and of X X^T / c^2 +- I for each bound c.

    min(s, c) = ((s + c) sign(s^2 + c^2) - (s - c) sign(s^2 - c^2)) / 2: for s >> c the errors of the two signs
    are nearly equal and cancel (article 11059, third form); max(s, c) = s + c - min(s, c).
    """
    dtype = working_dtype(None, X.dtype, None)
    unit, k = to_unit(X, "mclip")
    S = _sign(unit.to(dtype), steps)
    Y = unit if math.isinf(upper) else _from_above(unit, S, _scale_bound(upper, k), steps)
    if lower > 0:
        c = _scale_bound(lower, k)
        Y = Y + c * S.to(Y.dtype) - _from_above(unit, S, c, steps)
    return times_power_of_two(Y, k).to(X.dtype)


def _scale_bound(bound: float, k: Tensor) -> Tensor:
    """Return bound * 2**-k in float32, in the units of the scaled matrices."""
    return (bound * power_of_two(-k, torch.float64)).float()[:, None, None]


def _sign(X: Tensor, steps: int) -> Tensor:
    schedule = schedule_for_steps(steps, X.dtype)
    unit = gather([X], X.dtype, "mclip")
    # By its norm alone G - I, nearly all of whose values are -1, would begin at 1 / sqrt(k), below the interval.
    return plain_iteration(unit, schedule.polynomials, start=start_for([unit]), upper=schedule.interval[1])


def _from_above(unit: Tensor, S: Tensor, c: Tensor, steps: int) -> Tensor:
    """Return min(S, c) in the dtype of ``unit``, the signs in that of S."""
    X = (unit / c).to(S.dtype)
    G = gram(X)
    eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
    plus, minus = _sign(torch.cat([G + eye, G - eye]), steps).chunk(2)
    return 0.5 * c * (product(plus, S + X) + product(minus, S - X)).to(unit.dtype)
