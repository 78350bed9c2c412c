"""SVD of a tall matrix that is read in blocks of rows: in one pass, or in two and then exact."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrain.lowrank._input import Real
from spectrain.lowrank._phases import canonical
from spectrain.lowrank._random import gaussian
from spectrain.lowrank._row_blocks import RowBlocks, Shards, gram, triangular
from spectrain.lowrank._stops import checked_stops, tail_errors

_GRAM_FLOOR = 1e-6  # of sigma_max: the Gram matrix tells smaller singular values only to a few digits
_OVERSAMPLE = 10


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
    is below 1e-6 of the largest, from the triangle of a TSQR, one more pass; then U = A V / S block by block, with the
    residual of what is returned. One pass: see :func:`_one_pass`. Memory: a block, n^2, and U unless ``out`` takes it.
    """
    if source.once:
        return _one_pass(source, rank=rank, rtol=rtol, atol=atol, draw=draw)
    S, Vh = _right(gram(source)) if method != "tsqr" else _right_of_triangle(triangular(source))
    rows = source.global_shape[0] if isinstance(source, Shards) else source.length
    stops = checked_stops((rows, source.columns), rank=rank, rtol=rtol, atol=atol, name="svd", required=False)
    allowed = stops.allowed(torch.linalg.vector_norm(S))
    kept = stops.ranks(S, allowed)
    smallest = float(S[int(kept) - 1] / S[0]) if int(kept) and float(S[0]) > 0 else 1.0
    if method is None and (smallest < _GRAM_FLOOR or (stops.by_error and float(allowed) < _GRAM_FLOOR * float(S[0]))):
        S, Vh = _right_of_triangle(triangular(source))
        kept = stops.ranks(S, allowed)
    best = tail_errors(S)[int(kept)]
    r = int(kept)
    real = source.dtype.to_real() if source.dtype.is_complex else source.dtype
    S, Vh = S[:r].to(real), Vh[:r].to(source.dtype)
    Vh = canonical(Vh.mH, Vh)[0].mH
    U, error = _second_pass(source, S.double(), Vh, out)
    return Tall(U, S, Vh, kept, error, best)


def _right(G: Tensor) -> tuple[Tensor, Tensor]:
    """Return singular values and right vectors of A from A^H A."""
    squares, V = torch.linalg.eigh(G)
    return squares.flip(0).clamp_min(0).sqrt(), V.flip(1).mH


def _right_of_triangle(R: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.svd(R)[1:]


def _second_pass(source: RowBlocks, S: Tensor, Vh: Tensor, out: Any) -> tuple[Any, Tensor]:
    """Return U = A V / S and ||A - U diag(S) Vh||_F of the rounded factors, summed in double precision."""
    wide = torch.complex128 if Vh.is_complex() else torch.float64
    V = Vh.to(wide).mH / torch.where(S > 0, S, 1.0)
    product = S[:, None].to(wide) * Vh.to(wide)
    parts: list[Tensor] = []
    total, size, at = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for block in source:
        U = (block @ V).to(Vh.dtype)
        total = total + torch.linalg.matrix_norm(block - U.to(wide) @ product).square().cpu()
        size = size + torch.linalg.matrix_norm(block).square().cpu()
        if out is None:
            parts.append(U)
        else:
            out[at : at + len(U)] = U if isinstance(out, Tensor) else U.numpy()
        at += len(U)
    total, size = source.summed(torch.stack([total, size]))
    noise = torch.finfo(torch.float64).eps * (len(S) ** 0.5 + 1) * size.sqrt()
    return (torch.cat(parts) if out is None else out), total.sqrt() + noise


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

    def sketch(block: Tensor) -> None:
        if not W:
            n = block.shape[1]
            wanted = min(n, 2 * rank + _OVERSAMPLE)
            drawn = gaussian(n, wanted, dtype=block.dtype, device=block.device, generator=draw)
            W.append(torch.eye(n, dtype=block.dtype) if wanted == n else drawn)
        parts.append(block @ W[0])

    R = triangular(source, sketch)
    stops = checked_stops((source.length, source.columns), rank=rank, rtol=rtol, atol=atol, name="svd")
    known = torch.linalg.svdvals(R)
    size = torch.linalg.vector_norm(known)
    U2, T, V2h = torch.linalg.svd(R @ W[0], full_matrices=False)
    keep = 1e-6 * T[0] < T
    B, inverse = U2[:, keep].mH @ R, V2h[keep].mH / T[keep]
    UB, S, Vh = torch.linalg.svd(B, full_matrices=False)
    eps = torch.finfo(torch.float64).eps
    beyond = (size.square() - S.square().sum()).clamp_min(0).sqrt()
    r = min(int(stops.ranks(S, stops.allowed(size), beyond)), len(S))
    left = (size.square() - S[:r].square().sum()).clamp_min(0) + 4 * R.shape[1] ** 0.5 * eps * size.square()
    error = left.sqrt() + (1e6 * eps + 3 * torch.finfo(source.dtype).eps) * size
    real = source.dtype.to_real() if source.dtype.is_complex else source.dtype
    V, turn = canonical(Vh[:r].mH, (inverse @ UB[:, :r]).mH)
    U = torch.cat([(parts.pop(0) @ turn.mH).to(source.dtype) for _ in range(len(parts))])
    best = tail_errors(known)[min(r, len(known))]
    return Tall(U, S[:r].to(real), V.mH.to(source.dtype), torch.tensor(r), error, best)
