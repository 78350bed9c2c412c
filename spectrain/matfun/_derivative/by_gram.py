"""The change of U f(S) V^T from eigenvectors of the Gram matrix, for f(s) = phi(s^2) s whose quotients are known.

For wide X and x = s^2 the eigenvalues of G = X X^T, U its eigenvectors, U f(S) V^T is phi(G) X, and its change is

    U (phi * P + (Q * (B + B^T)) Z),    P = U^T D,  Z = U^T X,  B = P Z^T,  Q_ij = (phi(x_i) - phi(x_j)) / (x_i - x_j)

(Daleckii and Krein, 1965; Higham, Functions of Matrices, 3.2). No V is formed and nothing is divided by a small s.
Where the function has found U and S they are kept, and its derivative is these five products.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain._arrays.products import bmm
from spectrain._arrays.scale import recording, times_power_of_two, to_unit
from spectrain.matfun._derivative.differences import widen
from spectrain.matfun._entry.input import default_tolerance
from spectrain.matfun._iteration.syrk import float64_gram

_SAMPLES, _SAFETY = 16, 2.0


class Quotients(NamedTuple):
    """phi, and its divided differences with respect to s^2."""

    phi: Float[Tensor, "b k"]
    differences: Float[Tensor, "b k k"]


@runtime_checkable
class Scaling(Protocol):
    """The function f(s) = phi(s^2) s, for singular values in units of 2^exponent."""

    def quotients(self, S: Float[Tensor, "b k"], exponent: Int[Tensor, " b"]) -> Quotients:
        """Return phi and its divided differences in those units."""

    def edge(self, S: Float[Tensor, "b k"], exponent: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the least s near which an error of s counts, in those units."""


class Basis(NamedTuple):
    """Rising singular values and the vectors of the short side, in float64."""

    S: Float[Tensor, "b k"]
    U: Float[Tensor, "b k k"]

    def packed(self) -> Tensor:
        """Return both as one tensor (b, k, k + 1)."""
        return torch.cat([self.U, self.S[..., None]], -1)


def basis_of(X: Tensor, f: Scaling) -> Basis:
    """Return singular values and vectors of X (b, m, n): those of its Gram matrix where they are fine enough for f.

    That is where the error of the decomposition of G moves a singular value at the edge by no more than the noise of X
    in its dtype, or of a decomposition of it. Elsewhere they are LAPACK's SVD's.
    """
    if X.shape[-2] > X.shape[-1]:
        return basis_of(X.mT, f)
    unit, exponent = to_unit(X.double(), "matfun")
    G = float64_gram(unit.contiguous())
    L, U = torch.linalg.eigh(G)
    S = L.clamp_min(0).sqrt()
    eps = torch.finfo(torch.float64).eps * (X.shape[-1] + 8)
    allowed = max(torch.finfo(X.dtype).eps / 2, eps) * S.amax(-1) * f.edge(S, exponent)
    rest = (~(_noise(unit, G, L, U) <= allowed)).nonzero().flatten()
    if len(rest):
        left, values, _ = torch.linalg.svd(unit[rest], full_matrices=False)
        S, U = S.index_copy(0, rest, values.flip(-1)), U.index_copy(0, rest, left.flip(-1))
    return Basis(times_power_of_two(S[..., None], exponent)[..., 0], U)


def traced() -> bool:
    """Whether operations are recorded rather than run, by torch.compile or by a dispatch mode: no value can be read."""
    return recording() or torch._C._len_torch_dispatch_stack() > 0


def _noise(X: Tensor, G: Tensor, L: Tensor, U: Tensor) -> Float[Tensor, " b"]:
    """Return a bound on ||G - Q L Q^T||, Q the orthogonal matrix next to U; residual and defect are sampled.

    Twice the norm of products with 16 normal columns of a fixed seed, for each; and the rounding of G itself.
    """
    columns = _samples(G.shape[-1]).to(G).expand(len(G), -1, -1)
    turned = torch.bmm(U, columns)
    residual = torch.bmm(G, turned) - torch.bmm(U, L[..., None] * columns)
    defect = torch.bmm(U.mT, turned) - columns
    sampled = _norm(residual) + 2 * L.abs().amax(-1) * _norm(defect)
    rounding = torch.finfo(torch.float64).eps * sum(X.shape[-2:]) ** 0.5 * _norm(X).square()
    return _SAFETY / _SAMPLES**0.5 * sampled + rounding


@functools.lru_cache(maxsize=64)
def _samples(k: int) -> Float[Tensor, "k s"]:
    return torch.randn(k, _SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(k))


def change_by_basis(X: Tensor, D: Tensor, kept: Tensor, *, f: Scaling) -> Tensor:
    """Return the change of U f(S) V^T when X (b, m, n) changes by D; ``kept`` is a packed basis of X.

    It is that of a matrix with the basis found, to a relative Frobenius error of at most the default tolerance of D's
    dtype: for a narrow D the products run in float32, and once more in float64 where the bound on their rounding is
    above it.
    """
    if X.shape[-2] > X.shape[-1]:
        return change_by_basis(X.mT, D.mT, kept, f=f).mT.contiguous()
    if X.numel() == 0:
        return D
    U, S = kept.split([X.shape[-2], 1], -1)
    exponent = torch.frexp(S.amax((-2, -1)))[1]
    unit, S = times_power_of_two(X.double(), -exponent), times_power_of_two(S, -exponent)[..., 0]
    of = _Turned(U, torch.bmm(U.mT, unit), S, *f.quotients(S, exponent))
    if traced() or D.dtype == torch.float64:
        return of.change(widen(D))[0]
    change, error = of.change(D.float())
    again = (~(error <= default_tolerance(D.dtype))).nonzero().flatten()
    if len(again) == 0:
        return change
    part = _Turned(*(item[again] for item in of))
    return change.double().index_copy(0, again, part.change(widen(D[again]))[0])


class _Turned(NamedTuple):
    """What the change is linear in D with: everything in the basis U, in units of a power of two."""

    U: Float[Tensor, "b k k"]
    Z: Float[Tensor, "b k l"]
    S: Float[Tensor, "b k"]
    phi: Float[Tensor, "b k"]
    Q: Float[Tensor, "b k k"]

    def change(self, D: Tensor) -> tuple[Tensor, Float[Tensor, " b"]]:
        """Return the change with products in the dtype of D, and a bound on the relative error of their rounding.

        Roundings of sums are of random signs (Higham and Mary, SISC 41, 2019): an entry of P Z^T is off by u |p_i| s_j,
        and what that makes of the result is at most ``spread``, the norm of Q_ij (|p_i| s_j + |p_j| s_i) s_j.
        """
        U, Z, Q, phi = (item.to(D.dtype) for item in (self.U, self.Z, self.Q, self.phi))
        P = bmm(U.mT, D)
        B = bmm(P, Z.mT)
        change = bmm(U, torch.baddbmm(phi[..., None] * P, Q * (B + B.mT), Z))
        p, s = torch.linalg.vector_norm(P, dim=-1).double().square(), self.S.square()
        sums = torch.bmm(self.Q.square(), torch.stack([s * s, s * p], -1))
        spread = (2 * (torch.stack([p, s], -1) * sums).sum((-2, -1))).sqrt()
        size, direct = _norm(change).double(), p.sum(-1).sqrt() * self.phi.abs().amax(-1)
        error = 2 * torch.finfo(D.dtype).eps * (P.shape[-2] ** 0.5 * (direct + size) + 2 * spread)
        return change, torch.where(error > 0, error / size, 0.0)


def _norm(A: Tensor) -> Float[Tensor, " b"]:
    return torch.linalg.vector_norm(A, dim=(-2, -1))
