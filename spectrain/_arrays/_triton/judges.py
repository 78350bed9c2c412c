"""How far a result is from float64, counted in roundings: what a right kernel can cause is about one."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.kinds import Real

_ENDS = 256  # rows at the top and at the bottom of a large result, and all their columns, stand for it

Steps: TypeAlias = tuple[tuple[float, ...], ...]


def symmetric_roundings(
    found: Float[Tensor, "b k k"],
    C: Float[Tensor, "b k k"] | None,
    A: Float[Tensor, "b k l"],
    B: Float[Tensor, "b l k"],
    beta: Real = 1.0,
    alpha: Real = 1.0,
) -> float:
    """Return the largest |found - exact| / (u |exact| + sqrt(l) v (|beta C| + |alpha| |A| |B|)), by entries.

    u is the unit roundoff of the dtype and v that of float32: one rounding of the result, and what sums of l terms in
    float32 come to (Higham and Mary, SIAM J. Sci. Comput. 41, 2019). Of the first and the last matrix. NaN where there
    is one.
    """
    k, inner = A.shape[-2:]
    rows = torch.arange(k, device=A.device)
    rows = rows if k <= 2 * _ENDS else torch.cat([rows[:_ENDS], rows[-_ENDS:]])
    u, A, B = _unit(found.dtype), A[[0, -1]][:, rows].double(), B[[0, -1]].double()
    exact, size = alpha * (A @ B), abs(alpha) * (A.abs() @ B.abs())
    if C is not None and beta != 0:
        added = beta * C[[0, -1]][:, rows].double()
        exact, size = exact + added, size + added.abs()
    one = u * exact.abs() + inner**0.5 * _unit(torch.float32) * size
    far = (found[[0, -1]][:, rows].double() - exact).abs()
    return float((far / one.clamp_min(torch.finfo(one.dtype).tiny)).max())


def quintics_roundings(found: Float[Tensor, "b m n"], X: Float[Tensor, "b m n"], steps: Steps) -> float:
    """Return the relative Frobenius distance from the composition of c0 x + c1 x^3 + c2 x^5 at X, over u.

    Of the first and the last matrix, whichever is further. NaN where there is one.
    """
    exact = X[[0, -1]].double()
    exact = exact if X.shape[-2] <= X.shape[-1] else exact.mT
    found = found if X.shape[-2] <= X.shape[-1] else found.mT
    for c0, c1, c2 in steps:
        G = exact @ exact.mT
        exact = c0 * exact + (c1 * G + c2 * G @ G) @ exact
    distance = torch.linalg.matrix_norm(found[[0, -1]].double() - exact) / torch.linalg.matrix_norm(exact)
    return float(distance.max()) / _unit(found.dtype)


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2
