"""Wrong answers for msign: a check that accepts one of them checks nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from spectrain.testing._reference import exact_msign


def _every_direction(X: Tensor) -> Tensor:
    """U V^T over all min(m, n) directions: right at full rank, invents directions where X has none."""
    U, _, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    return U @ Vh


def _cubic_steps(X: Tensor) -> Tensor:
    """Five Newton-Schulz cubics after Frobenius scaling: far from enough for a small singular value."""
    Y = X.double() / torch.linalg.matrix_norm(X.double(), keepdim=True).clamp_min(1e-300)
    for _ in range(5):
        Y = 1.5 * Y - 0.5 * Y @ Y.mT @ Y
    return Y


def _orthogonal_but_not_polar(X: Tensor) -> Tensor:
    """Orthonormal rows or columns, but those of QR: passes every test of orthogonality."""
    tall = X.shape[-2] >= X.shape[-1]
    Q = torch.linalg.qr(X.double() if tall else X.double().mT)[0]
    return Q if tall else Q.mT


WRONG_MSIGN: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda X: X.double(),
    "normalised": lambda X: X.double() / torch.linalg.matrix_norm(X.double(), ord=2, keepdim=True).clamp_min(1e-300),
    "sign of entries": lambda X: X.double().sign(),
    "0.9 of the truth": lambda X: 0.9 * exact_msign(X),
    "minus the truth": lambda X: -exact_msign(X),
    "truth of the flipped": lambda X: exact_msign(X.flip(-1)),
    "truth of the transposed": lambda X: exact_msign(X.mT).mT.roll(1, -1),
    "zero": lambda X: torch.zeros_like(X, dtype=torch.float64),
    "too few steps": _cubic_steps,
    "QR instead of polar": _orthogonal_but_not_polar,
    "invents directions": _every_direction,
}
