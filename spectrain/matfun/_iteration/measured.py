"""The lower end that a schedule is designed for, chosen for the spectrum that is there."""

import numpy as np
import torch

from spectrain.matfun._iteration.design import design_lower, least_lower, schedule_for_steps
from spectrain.matfun._iteration.finish import finish_size
from spectrain.matfun._spectrum import Quadrature

_SEEN = 0.01  # squares of relative singular values below this are one node of the quadrature: `_spectrum.quadrature`
_SPREAD = 12
_RATIO, _ABOVE, _BELOW = 1.5, 6, 3
_MOST = 0.016  # error of a candidate in exact arithmetic: no result is larger than 1.02


def candidates(steps: int, dtype: torch.dtype) -> tuple[float, ...]:
    """Return the lower ends worth trying, falling: the default one, longer intervals and shorter ones.

    They are 1.5**6 to 1.5**-3 times the default, as long as the error of ``steps`` quintics is at most 0.016 and the
    end is not below the noise of the dtype.
    """
    default, least = design_lower(steps, dtype), least_lower(dtype)
    lowers = [default * _RATIO**i for i in range(_ABOVE, -_BELOW - 1, -1)]
    return tuple(x for x in lowers if least <= x < 1 and schedule_for_steps(steps, dtype, x).error <= _MOST)


def measured_lowers(spectrum: Quadrature, short: int, steps: int, dtype: torch.dtype, *, finish: bool) -> list[float]:
    """Return for each matrix the candidate whose schedule has the least expected error on its spectrum.

    The expected error is the root mean square of p(sigma) - 1 over the distribution, without the part at the lower end
    that :func:`finished` takes care of. Each node stands for an interval, as wide as the quadrature cannot see into:
    [sqrt(sigma^2 - 0.01), sigma], or for a node within 0.01 of zero [0, 1.5 sigma].
    """
    taken = finish_size(short) / short if finish else 0.0
    lowers = candidates(steps, dtype)
    schedules = [schedule_for_steps(steps, dtype, lower) for lower in lowers]
    best = []
    for nodes, weights in zip(
        spectrum.nodes.double().cpu().numpy(), spectrum.weights.double().cpu().numpy(), strict=True
    ):
        x, w = _spread(nodes, weights)
        w = _without_first(w, taken)
        errors = [float(np.sum(w * (schedule(x) - 1) ** 2)) for schedule in schedules]
        best.append(lowers[int(np.argmin(errors))])
    return best


def _spread(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights, points rising, that stand for the intervals of the nodes."""
    unseen = nodes**2 < _SEEN
    low = np.sqrt(np.maximum(nodes**2 - _SEEN, 0.0))
    high = np.where(unseen, 1.5 * nodes, nodes)
    parts = (np.arange(_SPREAD) + 0.5) / _SPREAD
    x = (low[:, None] + (high - low)[:, None] * parts).ravel()
    w = np.repeat(weights / _SPREAD, _SPREAD)
    order = np.argsort(x)
    return x[order], w[order]


def _without_first(w: np.ndarray, mass: float) -> np.ndarray:
    """Return the weights less the first ``mass`` of them."""
    left = np.maximum(np.cumsum(w) - mass, 0.0)
    return np.minimum(w, left)
