"""The singular value decomposition, exact, truncated or randomized, with its error."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectrain._arrays.generators import Generator, repeating_generator
from spectrain._arrays.kinds import Real
from spectrain._arrays.typed import Generic, Held, Ndarray, results
from spectrain.lowrank._derivatives import carries_derivative
from spectrain.lowrank._matrix.error import product_noise, residual_error
from spectrain.lowrank._matrix.matrix import Array, Matrix, enter, of_entries, to_numpy
from spectrain.lowrank._matrix.result import Factorization, widen
from spectrain.lowrank._matrix.scale import canonical, in_range, rescale, round_up, unit_scaled
from spectrain.lowrank._matrix.stops import Norm, Stops, check_stops, tail_errors
from spectrain.lowrank._subspace.krylov import randomized_ritz
from spectrain.lowrank._subspace.row_blocks import RowBlocks, Shards
from spectrain.lowrank._subspace.tall import tall_svd

_SMALL = 128  # below, LAPACK is faster than any subspace


class _Letters(NamedTuple, Generic[Held]):
    U: Held
    S: Held
    Vh: Held


class SVD(Factorization[Held], _Letters[Held]):
    """A ~ U diag(S) Vh, S falling, columns of U and rows of Vh orthonormal, or zero beyond ``.rank``; unpacks into
    U, S, Vh.
    """

    def chain(self) -> Sequence[Array]:
        """Return U and diag(S) Vh."""
        U, S, Vh = map(widen, self)
        return U, S[..., :, None] * Vh


@results(SVD[Tensor], SVD[Ndarray], SVD[Any])
def svd(
    A: Array,
    *,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    norm: Norm = "fro",
    method: Literal["exact", "krylov", "gram", "tsqr"] | None = None,
    oversample: int = 5,
    power: int | None = None,
    block: int | None = None,
    out: Array | None = None,
    generator: Generator = None,
) -> SVD:
    """Return U, S, Vh with A ~ U diag(S) Vh: orthonormal columns and rows, S falling, cut at the first stop reached.

    Stops: ``rank``; ``rtol``, an error of at most rtol ||A||; ``atol``, an error of at most atol; whichever comes
    first; none: all min(m, n). ``norm`` is that of the errors, "fro" or 2. ``.error`` bounds ||A - U diag(S) Vh||;
    ``.failure`` is the probability that it does not (0 for dense matrices in the Frobenius norm). ``.best`` is the
    smallest error of that rank (Eckart, Young, Mirsky), where it is known.

    ``method="exact"`` is LAPACK's decomposition, cut: best for its rank. ``"krylov"`` is a block Krylov subspace
    (Golub, Luk and Overton 1981; Musco and Musco 2015) from ``block`` random columns (rank + ``oversample``, or 32
    where only a tolerance is given), two products a step: with ``power`` given, 1 + power steps; without, until a step
    lowers the squared error by less than 0.2 %, or until the tolerance is certified: by the norm of A, where it is
    known, else by Gaussian probes. None picks: exact for small matrices, for large ranks, without a stop, where
    gradients are wanted and in a compiled graph. Operators that need the exact one are multiplied by the identity.

    Shapes: A (*batch, m, n), U (*batch, m, r), S (*batch, r), Vh (*batch, r, n); where a tolerance decides, r is the
    largest of the batch, and smaller items are padded with zeros; ``.rank`` (*batch). Dense tensors, NumPy arrays,
    torch and SciPy sparse matrices, operators (``shape``, ``dtype``, ``@`` and an adjoint). Half precision is computed
    in float32 and rounded, and the error is that of the rounded factors. The largest entry of each column of U is real
    and positive. The result repeats itself; ``generator`` is a torch.Generator or a seed. Differentiable in a dense
    A where the singular values that are kept differ from each other.

    Tall matrices that are read by rows: a numpy.memmap, :class:`RowBlocks` (arrays on disk, iterators), and a DTensor
    sharded along its rows, whose U is sharded alike. Read twice, the result is exact: right vectors from the Gram
    matrix in double precision, ``method="gram"``, or from a TSQR, ``"tsqr"``, which is taken by itself where a kept
    singular value is below 1e-6 of the largest; ``out``, an array m x r, takes U block by block. Read once, from an
    iterator, with ``rank``: a sketch of 2 rank + 10 columns. Then the largest entry of
    each row of Vh is real and positive, instead of that of U.

    Errors: ValueError for a rank outside 1..min(m, n), tolerances that are none, NaN, empty matrices, a wrong
    adjoint, singular values above the largest number of the dtype; TypeError for other dtypes. A tolerance below
    rounding is answered with all there is and a RuntimeWarning. Cost: exact about 10 m n min(m, n); krylov 2 (1 +
    power) products with ``block`` columns.

    >>> A = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    >>> U, S, Vh = found = svd(A, rank=1)
    >>> S.tolist(), found.dense().tolist(), round(float(found.error), 5), float(found.best)
    ([4.0], [[0.0, 0.0], [0.0, 4.0], [0.0, 0.0]], 3.0, 3.0)
    """
    draw = None if torch.compiler.is_compiling() else repeating_generator(generator, "svd")
    if draw is not None and (isinstance(A, RowBlocks | np.memmap) or hasattr(A, "full_tensor")) and A.ndim == 2:
        return _by_rows(A, rank=rank, rtol=rtol, atol=atol, norm=norm, method=method, out=out, draw=draw)
    matrix = enter(A, "svd")
    stops = check_stops(matrix.shape, rank=rank, rtol=rtol, atol=atol, norm=norm, name="svd", required=False)
    columns = _columns(matrix, stops, rank=rank, oversample=oversample, power=power, block=block)
    if method not in (None, "exact", "krylov"):
        raise ValueError(f'svd: method must be "exact", "krylov" or None for a matrix in memory, got {method!r}')
    if out is not None:
        raise ValueError("svd: out= takes the U of a matrix that is read by rows: an array on disk or RowBlocks")
    with torch.autocast(matrix.device.type, enabled=False):
        if draw is not None and (method or _method(matrix, stops, columns)) == "krylov":
            found = _by_krylov(matrix, stops, block=columns, power=power, generator=draw)
            if found is not None:
                return found
        return _exact(matrix, stops)


def _by_rows(
    A: Array,
    *,
    rank: int | None,
    rtol: Real | None,
    atol: Real | None,
    norm: Norm,
    method: str | None,
    out: Array | None,
    draw: torch.Generator,
) -> SVD:
    """Return the decomposition of a matrix that is read by rows."""
    source = A if isinstance(A, RowBlocks) else Shards(A) if hasattr(A, "full_tensor") else RowBlocks(A)
    if norm != "fro" or method not in (None, "gram", "tsqr"):
        raise ValueError(
            'svd: a matrix that is read by rows has norm="fro" and method "gram", "tsqr" or None, '
            f"got {norm!r} and {method!r}"
        )
    found = tall_svd(source, rank=rank, rtol=rtol, atol=atol, method=method, out=out, draw=draw)
    U = source.whole(found.U) if isinstance(source, Shards) else found.U
    leave = (lambda X: to_numpy(X) if isinstance(X, Tensor) else X) if source.numpy else (lambda X: X)
    return SVD.of(
        *(leave(F) for F in (U, found.S, found.Vh)),
        rank=leave(found.rank),
        error=leave(found.error),
        best=leave(found.best),
        norm=norm,
    )


def _columns(
    matrix: Matrix, stops: Stops, *, rank: int | None, oversample: int, power: int | None, block: int | None
) -> int:
    """Return the checked number of columns in a block."""
    for key, value, least in (("oversample", oversample, 0), ("power", power, 0), ("block", block, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"svd: {key} must be an int of at least {least}, got {value!r}")
    if power is not None and not stops.by_error and rank is None:
        raise ValueError("svd: power= needs rank= or a tolerance: without them the decomposition is complete")
    wanted = 32 if rank is None or (stops.by_error and rank > 32) else rank + oversample
    return min(block or wanted, *matrix.shape[-2:])


def _method(matrix: Matrix, stops: Stops, columns: int) -> str:
    """Return the method that is faster: measured, about 100 flops an entry and column against 10 min(m, n)."""
    smallest = min(matrix.shape[-2:])
    unstopped = stops.limit == smallest and not stops.by_error
    wants_exact = torch.compiler.is_compiling() or (matrix.entries is not None and carries_derivative(matrix.entries))
    if unstopped or wants_exact or smallest < _SMALL or 6 * columns > smallest:
        return "exact"
    return "krylov"


def _exact(matrix: Matrix, stops: Stops) -> SVD:
    """Truncate LAPACK's decomposition; the error is the residual of the factors that are returned."""
    A, k = unit_scaled(matrix.dense(), "svd")
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    known = S.detach()
    size = torch.linalg.vector_norm(known, dim=-1) if stops.norm == "fro" else known[..., 0]
    allowed = stops.allowance(size, k)
    rank = stops.ranks(known, allowed - 2 * product_noise(A, A.shape[-1]).to(S.dtype) if stops.by_error else allowed)
    width = (int(rank.max()) if rank.numel() else 0) if stops.by_error else stops.limit
    keep = torch.arange(width, device=A.device) < rank[..., None]
    U, S, Vh = U[..., :width] * keep[..., None, :], S[..., :width] * keep, Vh[..., :width, :] * keep[..., :, None]
    best = tail_errors(known, norm=stops.norm).take_along_dim(rank[..., None], -1)[..., 0]
    letters = _letters(matrix, U, S, Vh, k)
    error = _residual(A, letters, k, stops.norm)
    stops.warn_of(rescale(error, k), rescale(allowed, k), rank, "svd")
    return _result(matrix, letters, k, rank=rank, error=error, best=best, stops=stops)


def _by_krylov(
    matrix: Matrix, stops: Stops, *, block: int, power: int | None, generator: torch.Generator
) -> SVD | None:
    """Return the block Krylov approximation, or None where the exact one is cheaper."""
    if matrix.entries is None:
        A, exponent = matrix.unit()
        k = torch.tensor(exponent, dtype=torch.int32, device=matrix.device)
    else:
        entries, k = unit_scaled(matrix.entries, "svd")
        A = matrix if entries is matrix.entries else of_entries(entries, "svd")  # looked at already
    ritz = randomized_ritz(A, stops, k, block=block, power=power, generator=generator)
    if ritz is None:
        return None
    letters = _letters(matrix, ritz.U, ritz.S, ritz.Vh, k)
    error, failure = ritz.error, ritz.failure
    rounded = matrix.out_dtype != matrix.dtype
    if A.entries is not None and (rounded or stops.norm == 2):  # probes do not see what rounding does to the factors
        error, failure = _residual(A.entries, letters, k, stops.norm), 0.0
    elif rounded:
        error = error + torch.finfo(matrix.out_dtype).eps * 2 * torch.linalg.vector_norm(ritz.S.double(), dim=-1)
    return _result(matrix, letters, k, rank=ritz.rank, error=error, best=None, stops=stops, failure=failure)


def _letters(matrix: Matrix, U: Tensor, S: Tensor, Vh: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors as they go out: canonical phases, scale undone, in the output dtype."""
    U, Vh = canonical(U, Vh)
    U, S, Vh = (F.to(matrix.dtype_of(F)) for F in (U, rescale(S, k), Vh))
    return U, in_range(S, "svd", "a singular value"), Vh


def _residual(A: Tensor, letters: tuple[Tensor, Tensor, Tensor], k: Tensor, norm: Norm) -> Tensor:
    """Return a bound on ||A - U diag(S) Vh|| for the factors as they go out; A is scaled by 2**-k."""
    real = A.dtype.to_real()
    U, S, Vh = (F.detach().to(A.dtype if F.is_complex() or not A.is_complex() else real) for F in letters)
    return residual_error(A.detach(), (U, rescale(S, -k)[..., :, None] * Vh), norm=norm)


def _result(
    matrix: Matrix,
    letters: tuple[Tensor, Tensor, Tensor],
    k: Tensor,
    *,
    rank: Tensor,
    error: Tensor,
    best: Tensor | None,
    stops: Stops,
    failure: float = 0.0,
) -> SVD:
    """Return the result as the caller's kind of arrays, errors in the units of A."""
    dtype = matrix.dtype.to_real()
    return SVD.of(
        *(matrix.value(F) for F in letters),
        rank=matrix.value(rank),
        error=matrix.value(round_up(rescale(error.to(dtype), k))),
        best=None if best is None else matrix.value(rescale(best.to(dtype), k)),
        norm=stops.norm,
        failure=failure,
    )
