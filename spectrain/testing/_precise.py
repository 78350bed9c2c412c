"""msign to more digits than float64 has: what a float64 result is measured against."""

import numpy as np
from jaxtyping import Float
from torch import Tensor


def precise_msign(X: Float[Tensor, "*batch m n"], rank: np.ndarray | int) -> np.ndarray:
    """Return U V^T over the ``rank`` largest singular values of X, in NumPy's longdouble.

    An SVD in float64, made orthonormal and compared with X in longdouble, leaves a residual D of about 1e-16 ||X||;
    the result is U V^T plus its first derivative in the direction D. What remains is (1e-16 condition)^2, and the 5e-20
    condition of 80-bit arithmetic. Where longdouble is float64 (some platforms) it is no better than float64.

    >>> import torch
    >>> X = torch.tensor([[2.0, 1e-9], [0.0, 1.0]], dtype=torch.float64)
    >>> Y = precise_msign(X, 2)
    >>> abs(float(Y[0, 1] + Y[1, 0])) < 1e-24, round(float(Y[0, 1] * 3e9), 6)
    (True, 1.0)
    """
    A = X.detach().double().numpy()
    if A.shape[-2] > A.shape[-1]:
        return precise_msign(X.mT, rank).swapaxes(-1, -2)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    U, Vh = _orthonormal(U.swapaxes(-1, -2)).swapaxes(-1, -2), _orthonormal(Vh)
    turned = U.swapaxes(-1, -2) @ A.astype(np.longdouble)
    M = turned @ Vh.swapaxes(-1, -2)
    outside = turned - M @ Vh
    D = M - S[..., None] * np.eye(S.shape[-1])
    kept = np.arange(S.shape[-1]) < np.asarray(rank)[..., None]
    core = kept[..., None] * np.eye(S.shape[-1]) + _change(D, S, kept)
    gained = np.where(kept, 1 / np.where(kept & (S > 0), S, 1), 0)[..., None] * outside
    return U @ (core @ Vh + gained)


def _orthonormal(Q: np.ndarray) -> np.ndarray:
    """Return the rows of Q made orthonormal by two steps of Newton and Schulz in longdouble."""
    Q = Q.astype(np.longdouble)
    for _ in range(2):
        Q = 1.5 * Q - 0.5 * (Q @ Q.swapaxes(-1, -2)) @ Q
    return Q


def _change(D: np.ndarray, S: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the change of the partial isometry in the singular basis (Daleckii and Krein, 1965)."""
    a, b, T = S[..., :, None], S[..., None, :], D.swapaxes(-1, -2)
    both = kept[..., :, None] & kept[..., None, :]
    one = kept[..., :, None] ^ kept[..., None, :]
    large, small = np.maximum(a, b), np.minimum(a, b)
    across = (large * D + small * T) / np.where(one, large**2 - small**2, 1)
    return np.where(both, (D - T) / np.where(both, a + b, 1), np.where(one, across, 0))
