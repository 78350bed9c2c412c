"""The pseudo-inverse, and the least-squares solver it is made of, with the rank that was decided.

Its derivative exists where the rank does not change. Under transforms of torch it is that of a polynomial in A and
A^+, products only.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain._arrays.typed import Generic, Held, Ndarray, alike, results
from spectrain.lowrank._derivatives import carries_derivative, is_transformed
from spectrain.lowrank._matrix.error import frobenius, matrix_norm
from spectrain.lowrank._matrix.matrix import Array, Matrix, enter
from spectrain.lowrank._matrix.result import Factorization, widen
from spectrain.lowrank._matrix.scale import in_range, join_parts, rescale, round_up, times_two_to, unit_scaled
from spectrain.lowrank._matrix.stops import check_stops
from spectrain.lowrank._rank_decision import Decision, decide

FLOOR = 1e-4  # of rtol: rounding in directions that are zero doubles each step, to about 40 u / rtol^2
Method: TypeAlias = Literal["svd", "gram"]
_GRAM_FROM = 32  # rows or columns at which the Gram matrix in double precision is faster than LAPACK's SVD in single
_GRAM_FLOOR = 1e-7  # relative to sigma_max; below, squares of singular values drown in rounding


def by_iteration(A: Tensor, *, rtol: Real, name: str) -> Tensor:
    """Return A^+ as the limit of X <- X (2 I - A X) from X = A^H / (||A||_1 ||A||_inf), in double precision.

    The step squares 1 - a s^2 for each singular value s, a = 1 / (||A||_1 ||A||_inf) <= 1 / sigma_max^2 (Ben-Israel and
    Cohen 1966): after log2(40 / (a c^2)) steps all s above the cutoff c = rtol sigma_max are inverted to rounding, and
    those far below are still zero. X X^H A^H removes, to second order, what rounding put where A is zero. About values
    near the cutoff it cannot decide: their projector is neither 0 nor 1, or X is larger than 1 / c. That is found and
    refused. Cost: two products a step, about 2 log2(1 / rtol) + 8 steps.
    """
    if rtol < FLOOR:
        raise ValueError(
            f"{name}: method='iteration' needs rtol >= {FLOOR:g}, got {rtol:.3g}: rounding grows as 1 / rtol^2. Pass a "
            "larger rtol, or method='svd'"
        )
    with torch.no_grad():
        W = A.to(torch.complex128 if A.is_complex() else torch.float64)
        wide = W.mH if W.shape[-2] > W.shape[-1] else W
        bound = wide.abs().sum(-1).amax(-1) * wide.abs().sum(-2).amax(-1)
        X = wide.mH / torch.where(bound > 0, bound, 1.0)[..., None, None]
        cutoff = rtol * matrix_norm(wide, 2)
        least = torch.where(bound > 0, cutoff.square() / bound, 1.0)
        for _ in range(math.ceil(math.log2(40 / float(least.min()))) if least.numel() else 0):
            X = 2 * X - X @ (wide @ X)
        X = (X @ X.mH) @ wide.mH
        X = 2 * X - X @ (wide @ X)
        projector = wide @ X
        loose = frobenius(projector @ projector - projector)
        if not bool(((loose <= 1e-6) & (matrix_norm(X, 2) * cutoff <= 1)).all()):
            raise ValueError(
                f"{name}: iteration cannot decide the rank: a singular value is near rtol = {rtol:.3g} times the "
                "largest; pass another rtol, or method='svd'"
            )
        return X.mH if W.shape[-2] > W.shape[-1] else X


class _Attached(torch.autograd.Function):
    """P = A^+ with its derivative in A; P was computed without one."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, P: Tensor) -> Tensor:
        ctx.save_for_backward(A, P)
        return P.view_as(P)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        A, P = ctx.saved_tensors
        P = attach(A, P.detach())  # so that second derivatives see that P depends on A
        Gh, Ph = grad.mH, P.mH
        inside = -(Ph @ grad @ Ph)
        rows = Gh @ P @ Ph - A @ (P @ (Gh @ (P @ Ph)))
        columns = Ph @ P @ Gh - ((Ph @ P @ Gh) @ P) @ A
        return inside + rows + columns, None


def attach(A: Tensor, P: Tensor) -> Tensor:
    """Return P = A^+ as a differentiable function of A, at constant rank, in every mode of torch.

    dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P (Golub and Pereyra 1973). No division by differences of
    singular values: equal ones are no obstacle. Cost of a derivative by a graph: ten products. Dual numbers and
    transforms of torch.func, nested or not, go through :func:`_restore`.
    """
    if not carries_derivative(A):
        return P
    return _restore(A, P) if is_transformed(A) else _Attached.apply(A, P)


def _restore(A: Tensor, P: Tensor) -> Tensor:
    """Return P by a polynomial in A and P of which A^+ is the limit; P itself is a constant.

    G = (P A)^H P (A P)^H has the rows and columns of A^+ exactly, and is off by O(||P - A^+||); 2 G - G A G by its
    square. So one turn makes derivatives right to the first order, three to the seventh. A is brought to unit size
    first, for the squares of P.
    """
    A, k = unit_scaled(A, "pinv")
    fixed = P = times_two_to(P.detach(), k)
    for _ in range(3):
        G = (P @ A).mH @ P @ (A @ P).mH
        P = 2 * G - G @ A @ G
    return times_two_to(P + (fixed - P).detach(), -k)


class _Letters(NamedTuple, Generic[Held]):
    V: Held
    W: Held
    Uh: Held


class PseudoInverse(Factorization[Held], _Letters[Held]):
    """A^+ ~ V diag(W) Uh, W = 1/S rising; ``pinv_factors(A) @ b`` is the least-squares solution of smallest norm.

    ``rank`` is the number of singular values above ``cutoff``; ``kept`` is the smallest of them (inf: none),
    ``dropped`` the largest of the others (0: none), ``clear`` whether rounding could not have changed the decision.
    """

    cutoff: Held
    kept: Held
    dropped: Held
    clear: Held
    source: Tensor | None

    def chain(self) -> Sequence[Array]:
        """Return V diag(W) and Uh."""
        V, W, Uh = map(widen, self)
        return V * W[..., None, :], Uh

    def dense(self) -> Array:
        """Return A^+; differentiable at constant rank where A asks for a gradient. ValueError where it overflows."""
        P: Any = super().dense()
        in_range(torch.as_tensor(P), "pinv_factors", "an entry of the pseudo-inverse")
        return P if self.source is None else attach(self.source, P.to(self.source.dtype)).to(P.dtype)

    def matmul(self, X: Array) -> Array:
        """Return A^+ X, the least-squares solution of smallest norm, without forming A^+ unless gradients need it."""
        return super().matmul(X) if self.source is None else self.dense() @ X


@alike
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
    matrix, rtol, atol, scaled, k = _prepare(A, rtol, atol, "pinv")
    with torch.autocast(matrix.device.type, enabled=False):
        if method == "iteration":
            if atol:
                raise ValueError("pinv: method='iteration' knows rtol only; atol= needs method='svd' or 'gram'")
            P = by_iteration(scaled, rtol=rtol, name="pinv")
        else:
            found = decide(scaled, rtol=rtol, atol=_unit_atol(atol, k), gram=_gram(matrix, rtol, method))
            P = found.inverse()
        P = rescale_matrix(P.to(matrix.dtype), -k)
        source = matrix.dense()
        out = attach(source, P)
        return matrix.value(in_range(out.to(matrix.dtype_of(out)), "pinv", "an entry of the pseudo-inverse"))


@results(PseudoInverse[Tensor], PseudoInverse[Ndarray], PseudoInverse[Any])
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
    matrix, rtol, atol, scaled, k = _prepare(A, rtol, atol, "pinv_factors")
    if method not in (None, "svd", "gram"):
        raise ValueError(f'pinv_factors: method must be "svd", "gram" or None, got {method!r}')
    with torch.autocast(matrix.device.type, enabled=False):
        found = decide(scaled, rtol=rtol, atol=_unit_atol(atol, k), gram=_gram(matrix, rtol, method))
    rank, source, real = found.keep.sum(-1), matrix.dense(), matrix.dtype.to_real()
    width = int(rank.max()) if rank.numel() else 0
    keep = found.keep[..., :width]
    V, Uh = found.Vh.mH[..., :width] * keep[..., None, :], found.U.mH[..., :width, :] * keep[..., None]
    weights = found.weights()[..., :width].to(real)
    over = _overflow(weights, k, torch.finfo(matrix.out_dtype).max)
    W, Uh = rescale(weights, -k - over), rescale_matrix(Uh, over)
    told = {"cutoff": found.cutoff, "kept": found.smallest_kept(), "dropped": found.largest_dropped()}
    return PseudoInverse.of(
        *(matrix.factor(F) for F in (V, W, Uh)),
        rank=matrix.value(rank),
        error=matrix.value(_error_out(found, matrix, k)),
        clear=matrix.value(found.clear()),
        source=source if carries_derivative(source) else None,
        **{key: matrix.value(rescale(number.to(real), k)) for key, number in told.items()},
    )


def _prepare(A: Array, rtol: Real | None, atol: Real | None, name: str) -> tuple[Matrix, Real, Real, Tensor, Tensor]:
    """Return the matrix, its tolerances and a copy of unit size without gradient."""
    matrix = enter(A, name)
    check_stops(matrix.shape, rank=None, rtol=rtol, atol=atol, name=name, required=False)
    if rtol is None:
        rtol = max(matrix.shape[-2:]) * torch.finfo(matrix.out_dtype).eps if atol is None else 0.0
    scaled, k = unit_scaled(matrix.dense().detach(), name)
    return matrix, rtol, atol or 0.0, scaled, k


def _unit_atol(atol: Real, k: Tensor) -> Tensor:
    return rescale(torch.full(k.shape, float(atol), dtype=torch.float64, device=k.device), -k)


def _overflow(weights: Tensor, k: Tensor, largest: float) -> Tensor:
    """Return by how many powers of two weights / 2**k are above the largest number of their dtype, 0 where none is."""
    most = weights.amax(-1) if weights.shape[-1] else torch.zeros_like(k, dtype=weights.dtype)
    return (torch.frexp(most)[1] - k - math.frexp(largest)[1] + 1).clamp_min(0)


def _error_out(found: Decision, matrix: Matrix, k: Tensor) -> Tensor:
    """Return the error in the units of A^+, rounded up, with what W may lose below the smallest normal number."""
    unit = torch.finfo(matrix.out_dtype)
    error = round_up(rescale(found.error(2 * unit.eps).to(matrix.dtype.to_real()), -k))
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


def rescale_matrix(X: Tensor, k: Tensor) -> Tensor:
    """Return X * 2**k for a batch of matrices, real or complex."""
    if not X.is_complex():
        return rescale(X, k)
    return join_parts(rescale(torch.view_as_real(X.resolve_conj()), k))
