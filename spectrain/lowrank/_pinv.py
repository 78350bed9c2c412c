"""The pseudo-inverse, and the least-squares solver it is made of, with the rank that was decided."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from spectrain.lowrank._constant_rank import attached
from spectrain.lowrank._derivatives import differentiated
from spectrain.lowrank._hyperpower import by_iteration
from spectrain.lowrank._matrix.matrix import Array, Matrix, Real, entered
from spectrain.lowrank._matrix.result import Factorization, widened
from spectrain.lowrank._matrix.scale import in_range, joined, rescaled, rounded_up, unit_scaled
from spectrain.lowrank._matrix.stops import checked_stops
from spectrain.lowrank._rank_decision import Decision, decided

Method: TypeAlias = Literal["svd", "gram"]

_GRAM_FROM = 32  # rows or columns at which the Gram matrix in double precision is faster than LAPACK's SVD in single
_GRAM_FLOOR = 1e-7  # relative to sigma_max; below, squares of singular values drown in rounding


class _Letters(NamedTuple):
    V: Array
    W: Array
    Uh: Array


class PseudoInverse(Factorization, _Letters):
    """A^+ ~ V diag(W) Uh, W = 1/S rising; ``pinv_factors(A) @ b`` is the least-squares solution of smallest norm.

    ``rank`` is the number of singular values above ``cutoff``; ``kept`` is the smallest of them (inf: none),
    ``dropped`` the largest of the others (0: none), ``clear`` whether rounding could not have changed the decision.
    """

    cutoff: Array
    kept: Array
    dropped: Array
    clear: Array
    source: Tensor | None

    def chain(self) -> Sequence[Array]:
        """Return V diag(W) and Uh."""
        V, W, Uh = map(widened, self)
        return V * W[..., None, :], Uh

    def dense(self) -> Array:
        """Return A^+; differentiable at constant rank where A asks for a gradient. ValueError where it overflows."""
        P = super().dense()
        in_range(torch.as_tensor(P), "pinv_factors", "an entry of the pseudo-inverse")
        return P if self.source is None else attached(self.source, P.to(self.source.dtype)).to(P.dtype)

    def matmul(self, X: Array) -> Array:
        """Return A^+ X, the least-squares solution of smallest norm, without forming A^+ unless gradients need it."""
        return super().matmul(X) if self.source is None else self.dense() @ X


def pinv(
    A: Array,
    *,
    rtol: Real | None = None,
    atol: Real | None = None,
    method: Literal["svd", "gram", "iteration"] | None = None,
) -> Array:
    """Return A^+ = V diag(1/s_i where s_i > max(rtol s_1, atol), else 0) U^H, for A = U diag(s) V^H.

    It is the matrix with A P A = A, P A P = P and Hermitian A P and P A (Penrose), for A without the singular values
    that were dropped. ``rtol`` is max(m, n) eps of the input dtype unless given, as in torch and NumPy;
    :func:`pinv_factors` tells the rank and how near the decision was. ``method``: "svd"; "gram", eigenvectors of the
    smaller Gram matrix in double precision, which needs rtol >= 1e-7 (in single precision the default from 32 rows and
    columns on); "iteration", products only, for rtol >= 1e-4, ValueError where a singular value is near the cutoff.

    Shapes: A (*batch, m, n) to (*batch, n, m), tensors or NumPy arrays; half precision through float32; complex, also
    in a compiled graph. Differentiable at constant rank, equal singular values included: twice, forwards and
    backwards, by dual numbers and by torch.func. Errors: TypeError and ValueError for what is no finite matrix, and
    where A^+ is above the largest number of the dtype. Cost: one decomposition and m n min(m, n).

    >>> A = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    >>> pinv(A).tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    matrix, rtol, atol, scaled, k = _prepared(A, rtol, atol, "pinv")
    with torch.autocast(matrix.device.type, enabled=False):
        if method == "iteration":
            if atol:
                raise ValueError("pinv: method='iteration' knows rtol only; atol= needs method='svd' or 'gram'")
            P = by_iteration(scaled, rtol=rtol, name="pinv")
        else:
            found = decided(scaled, rtol=rtol, atol=_unit_atol(atol, k), gram=_gram(matrix, rtol, method))
            P = found.inverse()
        P = rescaled_matrix(P.to(matrix.dtype), -k)
        source = matrix.dense()
        out = attached(source, P)
        return matrix.value(in_range(out.to(matrix.dtype_of(out)), "pinv", "an entry of the pseudo-inverse"))


def pinv_factors(
    A: Array, *, rtol: Real | None = None, atol: Real | None = None, method: Method | None = None
) -> PseudoInverse:
    """Return V, W, Uh with A^+ ~ V diag(W) Uh, the rank that was decided and how; ``@ b`` solves least squares.

    Arguments as :func:`pinv`. ``.error`` bounds the Frobenius distance from the pseudo-inverse of A without its dropped
    part, the residual of the decomposition over s min(s, gap): inf where it cannot tell the rank. Shapes: V (*batch,
    n, r), W (*batch, r), Uh (*batch, r, m), padded with zeros to the largest rank of a batch. Where 1/s is above the
    largest number of the dtype, W is divided by a power of two and Uh multiplied by it. The factors carry no
    gradient; ``.dense()`` and ``@ b`` do.

    >>> A = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    >>> found = pinv_factors(A)
    >>> int(found.rank), bool(found.clear), [round(x, 9) for x in (found @ torch.ones(3, 1).double())[:, 0].tolist()]
    (1, True, [0.5, 0.5])
    """
    matrix, rtol, atol, scaled, k = _prepared(A, rtol, atol, "pinv_factors")
    if method not in (None, "svd", "gram"):
        raise ValueError(f'pinv_factors: method must be "svd", "gram" or None, got {method!r}')
    with torch.autocast(matrix.device.type, enabled=False):
        found = decided(scaled, rtol=rtol, atol=_unit_atol(atol, k), gram=_gram(matrix, rtol, method))
    rank, source, real = found.keep.sum(-1), matrix.dense(), matrix.dtype.to_real()
    width = int(rank.max()) if rank.numel() else 0
    keep = found.keep[..., :width]
    V, Uh = found.Vh.mH[..., :width] * keep[..., None, :], found.U.mH[..., :width, :] * keep[..., None]
    weights = found.weights()[..., :width].to(real)
    over = _overflow(weights, k, torch.finfo(matrix.out_dtype).max)
    W, Uh = rescaled(weights, -k - over), rescaled_matrix(Uh, over)
    told = {"cutoff": found.cutoff, "kept": found.smallest_kept(), "dropped": found.largest_dropped()}
    return PseudoInverse.of(
        *(matrix.factor(F) for F in (V, W, Uh)),
        rank=matrix.value(rank),
        error=matrix.value(_error_out(found, matrix, k)),
        clear=matrix.value(found.clear()),
        source=source if differentiated(source) else None,
        **{key: matrix.value(rescaled(number.to(real), k)) for key, number in told.items()},
    )


def _prepared(A: Array, rtol: Real | None, atol: Real | None, name: str) -> tuple[Matrix, Real, Real, Tensor, Tensor]:
    """Return the matrix, its tolerances and a copy of unit size without gradient."""
    matrix = entered(A, name)
    checked_stops(matrix.shape, rank=None, rtol=rtol, atol=atol, name=name, required=False)
    if rtol is None:
        rtol = max(matrix.shape[-2:]) * torch.finfo(matrix.out_dtype).eps if atol is None else 0.0
    scaled, k = unit_scaled(matrix.dense().detach(), name)
    return matrix, rtol, atol or 0.0, scaled, k


def _unit_atol(atol: Real, k: Tensor) -> Tensor:
    return rescaled(torch.full(k.shape, float(atol), dtype=torch.float64, device=k.device), -k)


def _overflow(weights: Tensor, k: Tensor, largest: float) -> Tensor:
    """Return by how many powers of two weights / 2**k are above the largest number of their dtype, 0 where none is."""
    most = weights.amax(-1) if weights.shape[-1] else torch.zeros_like(k, dtype=weights.dtype)
    return (torch.frexp(most)[1] - k - math.frexp(largest)[1] + 1).clamp_min(0)


def _error_out(found: Decision, matrix: Matrix, k: Tensor) -> Tensor:
    """Return the error in the units of A^+, rounded up, with what W may lose below the smallest normal number."""
    unit = torch.finfo(matrix.out_dtype)
    error = rounded_up(rescaled(found.error(2 * unit.eps).to(matrix.dtype.to_real()), -k))
    return error + found.keep.sum(-1).sqrt() * (unit.smallest_normal * unit.eps)


def _gram(matrix: Matrix, rtol: Real, method: str | None) -> bool:
    """Whether to use the Gram matrix; ValueError where it was asked for and cannot tell what the cutoff asks."""
    if method not in (None, "svd", "gram"):
        raise ValueError(f'pinv: method must be "svd", "gram", "iteration" or None, got {method!r}')
    if method == "gram" and rtol < _GRAM_FLOOR:
        raise ValueError(
            f"pinv: method='gram' squares singular values and cannot tell those below {_GRAM_FLOOR:g} of the largest, "
            f"but rtol is {rtol:.3g}; pass a larger rtol, or method='svd'"
        )
    single = matrix.dtype in (torch.float32, torch.complex64)
    return method == "gram" or (
        method is None and single and rtol >= _GRAM_FLOOR and min(matrix.shape[-2:]) >= _GRAM_FROM
    )


def rescaled_matrix(X: Tensor, k: Tensor) -> Tensor:
    """Return X * 2**k for a batch of matrices, real or complex."""
    if not X.is_complex():
        return rescaled(X, k)
    return joined(rescaled(torch.view_as_real(X.resolve_conj()), k))
