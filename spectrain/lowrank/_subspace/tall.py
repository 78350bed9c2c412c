"""SVD of a tall matrix that is read in blocks of rows: in one pass, or in two and then exact."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._matrix.error import frobenius
from spectrain.lowrank._matrix.matrix import gaussian
from spectrain.lowrank._matrix.scale import as_returned, canonical, in_range, rescale, scale_by
from spectrain.lowrank._matrix.stops import check_stops, tail_errors
from spectrain.lowrank._subspace.row_blocks import RowBlocks, Shards, gram, triangular

_GRAM_FLOOR = 1e-6  # of sigma_max: the Gram matrix tells smaller singular values only to a few digits
_OVERSAMPLE = 10
_ROWS = 4096  # of U at a time, where it is made orthonormal


class Tall(NamedTuple):
    """The factors in their output dtype, U as a tensor or in the array that was given for it."""

    U: Any
    S: Tensor
    Vh: Tensor
    rank: Tensor
    error: Tensor
    best: Tensor | None


def tall_svd(
    source: RowBlocks,
    *,
    rank: int | None,
    rtol: Real | None,
    atol: Real | None,
    method: str | None,
    out: Any,
    draw: torch.Generator,
) -> Tall:
    """Return the factors of a matrix of n columns whose rows are read twice, or once where that is all there is.

    Two passes: right singular vectors from the Gram matrix in double precision, or, where a singular value that is kept
    is below 1e-6 of the largest, from the triangle of a TSQR, one more pass; then U = A V / S block by block, made
    orthonormal where it is not, with the residual of what is returned. Directions that the method cannot tell from
    rounding, below sqrt(m + n) eps of the largest by TSQR, and sqrt of that by Gram, are not counted in the rank: there
    U, S and Vh are zero. One pass: see :func:`_one_pass`. Memory: a block, n^2, and U unless ``out`` takes it.
    """
    if source.once:
        return _one_pass(source, rank=rank, rtol=rtol, atol=atol, draw=draw)
    S, Vh = _right(gram(source)) if method != "tsqr" else _right_of_triangle(triangular(source))
    rows = source.global_shape[0] if isinstance(source, Shards) else source.length
    stops = check_stops((rows, source.columns), rank=rank, rtol=rtol, atol=atol, name="svd", required=False)
    k = torch.tensor(source.exponent or 0, dtype=torch.int32, device=S.device)
    allowed = stops.allowance(torch.linalg.vector_norm(S), k)
    kept = stops.ranks(S, allowed)
    by_gram = method != "tsqr"
    smallest = float(S[int(kept) - 1] / S[0]) if int(kept) and float(S[0]) > 0 else 1.0
    if method is None and (smallest < _GRAM_FLOOR or (stops.by_error and float(allowed) < _GRAM_FLOOR * float(S[0]))):
        S, Vh = _right_of_triangle(triangular(source))
        kept, by_gram = stops.ranks(S, allowed), False
    best = tail_errors(S)[int(kept)]
    r = int(kept)
    real = source.dtype.to_real() if source.dtype.is_complex else source.dtype
    S, Vh, kept = _significant(S, Vh, r, rows, by_gram=by_gram)
    U, error = _second_pass(source, S, Vh, (as_returned(S, int(k), real), Vh.to(source.dtype)), out)
    stops.warn_of(rescale(error, k), rescale(allowed, k), kept, "svd")
    return Tall(
        U,
        in_range(rescale(S, k).to(real), "svd", "a singular value"),
        Vh.to(source.dtype),
        kept,
        rescale(error, k),
        rescale(torch.minimum(best, error), k),  # values from squares are known to sqrt(eps) of the largest
    )


def _significant(S: Tensor, Vh: Tensor, r: int, rows: int, *, by_gram: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return r values and rows of Vh, zero where they are rounding of the largest, and how many are not."""
    noise = torch.finfo(S.dtype).eps * (rows + len(S)) ** 0.5
    floor = S[0] * (noise**0.5 if by_gram else noise)
    there = S[:r] > floor
    V, _ = canonical(Vh[:r].mH, Vh[:r])
    return S[:r] * there, V.mH * there[:, None], there.sum()


def _right(G: Tensor) -> tuple[Tensor, Tensor]:
    """Return singular values and right vectors of A from A^H A."""
    squares, V = torch.linalg.eigh(G)
    return squares.flip(0).clamp_min(0).sqrt(), V.flip(1).mH


def _right_of_triangle(R: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.svd(R)[1:]


def _second_pass(
    source: RowBlocks, S: Tensor, Vh: Tensor, rounded: tuple[Tensor, Tensor], out: Any
) -> tuple[Any, Tensor]:
    """Return U = A V / S and ||A - U diag(S) Vh||_F of the rounded factors, summed in double precision.

    V and S that go into U are those in double precision: rounded ones would turn a small column of U by their error
    over its singular value.
    """
    V = Vh.mH / torch.where(S > 0, S, 1.0)
    product = rounded[0][:, None].to(V.dtype) * rounded[1].to(V.dtype)
    parts: list[Tensor] = []
    sums = torch.zeros(2, dtype=torch.float64)
    G, at = torch.zeros(len(S), len(S), dtype=V.dtype, device=V.device), 0
    for block, _ in source.unit():
        U = block @ V
        G = G + U.mH @ U
        U = U.to(rounded[1].dtype)
        sums = sums + torch.stack([frobenius(block - U.to(V.dtype) @ product), frobenius(block)]).square().cpu()
        if out is None:
            parts.append(U)
        else:
            out[at : at + len(U)] = U if isinstance(out, Tensor) else U.numpy()
        at += len(U)
    total, size = source.sum(sums).sqrt()
    noise = torch.finfo(torch.float64).eps * (len(S) ** 0.5 + 1) * size
    found = torch.cat(parts) if out is None else out
    found, moved = _orthonormal(found, source.sum(G), S, at)
    return found, total + noise + moved


def _orthonormal(U: Any, G: Tensor, S: Tensor, rows: int) -> tuple[Any, Tensor]:
    """Return U R^-1, G = U^H U = R^H R, and a bound on the change of U diag(S); U itself where G is I to rounding.

    Column j of U = A V / S is off by eps S_0 / S_j, so that (R - I) diag(S) has the size of eps S_0, and S and V stay.
    """
    r = int((S > 0).sum())
    G, eye = G[:r, :r], torch.eye(r, dtype=G.dtype, device=G.device)
    unit, wide = (torch.finfo(X.dtype).eps for X in (torch.as_tensor(U[:0]), S))
    if not r or bool((G - eye).abs().max() <= max(4 * unit, 64 * wide)):
        return U, torch.zeros((), dtype=torch.float64)
    R = torch.linalg.cholesky(G).mH
    for at in range(0, rows, _ROWS):
        part = torch.as_tensor(U[at : at + _ROWS, :r]).to(R.dtype)
        turned = torch.linalg.solve_triangular(R, part, upper=True, left=False).to(torch.as_tensor(U[:0]).dtype)
        U[at : at + _ROWS, :r] = turned if isinstance(U, Tensor) else turned.numpy()
    return U, (frobenius((R - eye) * S[:r]) + unit * frobenius(S[:r][:, None])).cpu()


def _one_pass(
    source: RowBlocks,
    *,
    rank: int | None,
    rtol: Real | None,
    atol: Real | None,
    draw: torch.Generator,
) -> Tall:
    """Return the factors of rows that can be read once: kept are the triangle R of A = Q_A R and the sketch Y = A W.

    R W = U_2 T V_2^H has the size of n; Q = Q_A U_2 = Y V_2 / T spans the columns of Y, and Q^H A = U_2^H R needs A no
    more: A ~ Q (Q^H A), the projection on the range of a Gaussian sketch (Halko, Martinsson and Tropp 2011), whose
    squared error is ||R||_F^2 - ||Q^H A||_F^2. Directions of Y below 1e-6 of the largest are left out. ``.best`` is
    known from R. Memory: n^2 and m (2 rank + 10) in double precision.
    """
    if rank is None:
        raise ValueError("svd: rows that can be read once need rank=; for a tolerance pass a callable or an array")
    parts: list[Tensor] = []
    W: list[Tensor] = []

    def sketch(block: Tensor, fall: int) -> None:
        if not W:
            n = block.shape[1]
            wanted = min(n, 2 * rank + _OVERSAMPLE)
            drawn = gaussian(n, wanted, dtype=block.dtype, device=block.device, generator=draw)
            W.append(torch.eye(n, dtype=block.dtype) if wanted == n else drawn)
        if fall:
            parts[:] = [scale_by(part, -fall) for part in parts]
        parts.append(block @ W[0])

    R = triangular(source, sketch)
    stops = check_stops((source.length, source.columns), rank=rank, rtol=rtol, atol=atol, name="svd")
    exponent = torch.tensor(source.exponent or 0, dtype=torch.int32, device=R.device)
    known = torch.linalg.svdvals(R)
    size = torch.linalg.vector_norm(known)
    U2, T, V2h = torch.linalg.svd(R @ W[0], full_matrices=False)
    keep = 1e-6 * T[0] < T
    B, inverse = U2[:, keep].mH @ R, V2h[keep].mH / T[keep]
    UB, S, Vh = torch.linalg.svd(B, full_matrices=False)
    eps = torch.finfo(torch.float64).eps
    beyond = (size.square() - S.square().sum()).clamp_min(0).sqrt()
    r = min(int(stops.ranks(S, stops.allowance(size, exponent), beyond)), len(S))
    left = (size.square() - S[:r].square().sum()).clamp_min(0) + 4 * R.shape[1] ** 0.5 * eps * size.square()
    error = left.sqrt() + (1e6 * eps + 3 * torch.finfo(source.dtype).eps) * size
    real = source.dtype.to_real() if source.dtype.is_complex else source.dtype
    V, turn = canonical(Vh[:r].mH, (inverse @ UB[:, :r]).mH)
    U = torch.cat([(parts.pop(0) @ turn.mH).to(source.dtype) for _ in range(len(parts))])
    best = tail_errors(known)[min(r, len(known))]
    S, error, best = (rescale(X, exponent) for X in (S[:r], error, torch.minimum(best, error)))
    return Tall(U, in_range(S.to(real), "svd", "a singular value"), V.mH.to(source.dtype), torch.tensor(r), error, best)
