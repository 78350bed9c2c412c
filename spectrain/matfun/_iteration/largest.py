"""A bound on the largest singular value from the square of the Gram matrix, which a first step needs anyway."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.products import symmetric_bmm
from spectrain._arrays.scale import recording

_VECTORS, _ROUNDS, _MARGIN = 8, 4, 1.15
_SUMS = 2.0**-18
_SQUARED, _SQUARED_HALF = 256, 1024  # short sides up to which one more product is cheaper than the power method


def norm_bound(G2: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return s >= sigma_max(X) from G2 = (X X^T)^2, X of Frobenius norm about 1: the lesser of two bounds.

    The Schatten-8 norm always holds and is up to k^(1/8) too large: 1.65 times for a square Gaussian of 1024 rows.
    The power method with 8 vectors and 8 products by G2 finds sigma_max from below; 1.15 times that is a bound unless
    all eight starting vectors are nearly orthogonal to the leading singular space. For random ones that has
    probability below (0.824 k^(1/2) 1.15^(-4 (8 - 1/2)))^8, 6e-4 for k = 1024 and the least favourable spectrum
    (Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1992, theorem 4.1a); ours are fixed chirps, so that
    results repeat. Cost: 8 products of k x k by k x 8. Zero matrices get 1.
    """
    return torch.minimum(schatten_bound(G2), _MARGIN * _power_method(G2))


def start_bound(G2: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return s >= sigma_max(X) from G2 = (X X^T)^2, X of Frobenius norm about 1, with which an iteration begins.

    Up to a short side of 256, in half precision 1024, the Schatten-16 norm, from the square of G2. It always holds, is
    1.11 times too large for a square Gaussian of 256 rows, less for spectra that fall faster, and at most k^(1/16),
    where all singular values are equal and none is small. One product there costs a third of the forty calls of the
    power method. Beyond, :func:`norm_bound`.
    """
    if G2.shape[-1] > (_SQUARED_HALF if G2.itemsize < 4 else _SQUARED):
        return norm_bound(G2)
    return schatten_bound(symmetric_bmm(G2, G2)).sqrt()


def schatten_bound(G2: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return a bound on the largest singular value of X from G2 = (X X^T)^2: ||X||_S8 = ||G2||_F^(1/4).

    It is at most k^(1/8) too large, where the Frobenius norm can be k^(1/2) too large, and costs one reduction.
    The factor covers the rounding of the products: that of the working dtype, and long sums in float32.
    Zero matrices get 1.
    """
    norm = torch.linalg.vector_norm(G2, dim=(-2, -1))
    norm = norm.to(torch.promote_types(norm.dtype, torch.float32))
    return torch.where(norm > 0, norm, 1.0).sqrt().sqrt() * (1 + torch.finfo(G2.dtype).eps + _SUMS)


def _power_method(G2: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return the largest growth of a vector in the last of the products by G2, to the power 1/4; 1 for zero."""
    G2 = G2.float() if G2.itemsize < 4 else G2  # eight rows are no work for units that multiply half precision
    V = chirps(G2.shape[-1], _VECTORS, G2).mT.expand(len(G2), -1, -1)  # few rows are faster than few columns
    for i in range(_ROUNDS):
        W = torch.bmm(V, G2)
        V = torch.bmm(W, G2)
        if i < _ROUNDS - 1:  # or their eighth powers leave the range
            V = V / _positive(_lengths(V))[..., None]
    growth = (_lengths(V) / _positive(_lengths(W))).amax(-1)
    return _positive(growth).sqrt().sqrt()


def _lengths(V: Float[Tensor, "b v k"]) -> Float[Tensor, "b v"]:
    return torch.linalg.vector_norm(V, dim=-1)


def _positive(sizes: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Return the sizes, with 1 in place of 0."""
    return torch.where(sizes > 0, sizes, 1.0)


def chirps(k: int, count: int, like: Tensor) -> Float[Tensor, "1 k v"]:
    """Return columns cos(w_j i^2): as good as random towards vectors that occur, and the same every time."""
    if recording() or type(like) is not Tensor:  # a tensor of a graph, or of a mode, belongs to it
        return _chirps(k, count, like.dtype, like.device)
    with torch.inference_mode(False):  # what is kept must serve in every mode
        return _kept_chirps(k, count, like.dtype, like.device)


def _chirps(k: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    i = torch.arange(1, k + 1, dtype=torch.float64, device=device)
    w = torch.arange(2, 2 + min(count, k), dtype=torch.float64, device=device).sqrt()
    return torch.cos(i[:, None].square() * w).to(dtype)[None]


_kept_chirps = functools.lru_cache(maxsize=64)(_chirps)
