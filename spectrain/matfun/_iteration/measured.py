"""The lower end that a schedule is designed for, chosen for the spectrum that is there.

What is there is read off the Gram matrix at hand: a quadrature of the distribution of the singular values.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.design import design_lower, least_lower, schedule_for_steps
from spectrain.matfun._iteration.finish import finish_size
from spectrain.matfun._iteration.largest import chirps

_PROBES, _LANCZOS = 8, 8
_SEEN = 0.01  # squares of relative singular values below this are one node of :func:`quadrature`
_SPREAD = 12  # points that stand for the interval of a node
_RATIO, _ABOVE, _BELOW = 1.5, 6, 3  # candidates are that far apart, so many of them longer and shorter
_MOST = 0.016  # error of a candidate in exact arithmetic: no result is larger than 1.02


class Quadrature(NamedTuple):
    """Nodes in [0, 1], singular values relative to a bound on the largest one, rising, and weights that add up to 1."""

    nodes: Float[Tensor, "b q"]
    weights: Float[Tensor, "b q"]


def quadrature(G: Float[Tensor, "b k k"], top: Float[Tensor, " b"]) -> Quadrature:
    """Return the distribution of sigma / top by stochastic Lanczos quadrature on G = X X^T.

    Eight Lanczos steps from each of eight chirps; the nodes are the Ritz values, the weights the squared first
    components of their vectors (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017). Near zero the resolution
    ends at about 1/8 for a continuous spectrum, and at the rounding of G: the square root of u in its dtype.
    Cost: eight products of k x k by k x 8, 1 % of a step for k = 1024.
    """
    k = G.shape[-1]
    working = torch.promote_types(G.dtype, torch.float32)
    v = chirps(k, _PROBES, G).to(working).expand(len(G), -1, -1)
    v = v / torch.linalg.vector_norm(v, dim=-2, keepdim=True)
    steps, before, beta = min(_LANCZOS, k), torch.zeros_like(v), torch.zeros_like(v[:, :1])
    diagonal, off = [], []
    for _ in range(steps):
        w = torch.bmm(G, v.to(G.dtype)).to(working) / top[:, None, None].square() - beta * before
        alpha = (v * w).sum(-2, keepdim=True)
        w = w - alpha * v
        beta = torch.linalg.vector_norm(w, dim=-2, keepdim=True)
        diagonal.append(alpha[:, 0])
        off.append(beta[:, 0])
        before, v = v, torch.where(beta > 1e-6, w / beta.clamp_min(1e-30), 0.0)
        beta = torch.where(beta > 1e-6, beta, 0.0)
    T = torch.diag_embed(torch.stack(diagonal, -1))
    T += torch.diag_embed(torch.stack(off, -1)[..., :-1], offset=1) + torch.diag_embed(
        torch.stack(off, -1)[..., :-1], offset=-1
    )
    squares, vectors = torch.linalg.eigh(T)
    nodes = squares.clamp(0, 1).sqrt().flatten(1)
    weights = vectors[..., 0, :].square().flatten(1) / diagonal[0].shape[-1]
    order = nodes.argsort(-1)
    return Quadrature(nodes.take_along_dim(order, -1), weights.take_along_dim(order, -1))


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
    that :func:`finish_smallest` takes care of. Each node stands for an interval, as wide as the quadrature cannot see
    into: [sqrt(sigma^2 - 0.01), sigma], or for a node within 0.01 of zero [0, 1.5 sigma].
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
