"""The Nystrom approximation of a positive semidefinite kernel, with the trace of what it leaves."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from spectrain.lowrank._cholesky import PartialCholesky, randomly_pivoted
from spectrain.lowrank._derivatives import undifferentiated
from spectrain.lowrank._input import Array, Matrix, Real, entered
from spectrain.lowrank._random import Generator, generator_of
from spectrain.lowrank._result import Factorization, widened
from spectrain.lowrank._stops import Stops, checked_stops

Landmarks: TypeAlias = Literal["rpcholesky", "uniform"] | Array | None


class _Letters(NamedTuple):
    landmarks: Array
    F: Array


class Nystrom(Factorization, _Letters):
    """K ~ F F^H, with F F^H = K[:, landmarks] K[landmarks, landmarks]^+ K[landmarks, :]; the rest is semidefinite.

    ``error`` bounds the trace of K - F F^H, which is its nuclear norm and bounds the Frobenius and the spectral one;
    ``trace`` is that of K, ``evaluations`` the number of entries of K that were computed.
    """

    trace: Array
    evaluations: int
    root: Array  # lower triangular L with L L^H = K[landmarks, landmarks]

    def chain(self) -> Sequence[Array]:
        """Return F and F^H."""
        F = widened(self.F)
        return F, F.mH if isinstance(F, Tensor) else F.conj().T

    def features(self, columns: Array) -> Array:
        """Return K[new, landmarks] L^-H for new points: inner products of these rows approximate K[new, new].

        ``columns`` is K[new, landmarks], as the kernel gives it for the new points and ``points[landmarks]``.
        """
        C, L = torch.as_tensor(columns), torch.as_tensor(self.root)
        found = torch.linalg.solve_triangular(L.mH, C.to(L.dtype), upper=True, left=False)
        return found if isinstance(columns, Tensor) else found.numpy()


def nystrom(
    K: Array | Callable[[Array, Array], Array],
    *,
    points: Array | None = None,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    landmarks: Landmarks = None,
    block: int | None = None,
    generator: Generator = None,
) -> Nystrom:
    """Return landmarks and F with K ~ F F^H, for a positive semidefinite K, from few of its columns.

    K is a matrix (n, n), dense or an array, or a function of two sets of points, K(X, Y) of shape (len(X), len(Y)),
    with ``points`` (n, ...): then only the diagonal and the columns of landmarks are computed. ``landmarks``:

    - ``"rpcholesky"`` (None): randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber 2022): the next landmark with
      probability proportional to the diagonal of the rest. E trace(K - F F^H) <= (1 + e) trace(K - K_r) for k >=
      r / e + r log(1 / (e h)) landmarks, h = trace(K - K_r) / trace(K), K_r the best of rank r. In blocks by rejection
      sampling, of the same law (Epperly, Tropp and Webber 2024).
    - ``"uniform"``: each point alike, what scikit-learn does. No guarantee.
    - indices: these, in this order.

    Stops: ``rank``, the number of landmarks; ``rtol`` and ``atol``, bounds on trace(K - F F^H), relative to trace(K)
    or absolute; whichever comes first; none are needed where landmarks are given. Landmarks that add nothing but
    rounding are left out, so ``.rank`` may be smaller. ``.error`` is the trace of the rest, exact up to rounding, which
    is added. The diagonal of the function is taken in slices of ``block`` points.

    Errors: ValueError where K is not square, not Hermitian, or has a negative diagonal or, by more than sqrt(eps) of
    the largest, a negative rest: then it is not semidefinite. TypeError for sparse matrices and operators: use
    :func:`svd`. Cost: (rank + 1) n evaluations and n rank^2. Shapes: landmarks (r,), F (n, r). Not batched, not
    differentiable.

    >>> X = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    >>> found = nystrom(lambda A, B: torch.exp(-torch.cdist(A, B).square()), points=X, rtol=1e-6)
    >>> found.F.shape[1] < 10, bool(found.error <= 50e-6)
    (True, True)
    """
    draw = generator_of(generator, "nystrom")
    for given_tensor in (K, points):
        if isinstance(given_tensor, Tensor):
            undifferentiated(given_tensor, "nystrom", "pass it .detach()ed")
    source = _function(K, points, block) if callable(K) and not hasattr(K, "shape") else _matrix(K, points)
    n = source.n
    given = None if landmarks is None or isinstance(landmarks, str) else _checked(landmarks, n)
    stops = checked_stops((n, n), rank=rank, rtol=rtol, atol=atol, name="nystrom", required=given is None)
    with torch.no_grad(), torch.autocast(source.like.device.type, enabled=False):
        return _found(source, stops, given, landmarks if isinstance(landmarks, str) else None, block, draw)


class _Source(NamedTuple):
    """Entries of K by index, its diagonal, and the matrix or the points they came from."""

    n: int
    entries: Callable[[Tensor, Tensor], Tensor]
    diagonal: Tensor
    like: Matrix


def _matrix(K: Array, points: Array | None) -> _Source:
    matrix = entered(K, "nystrom")
    if points is not None:
        raise ValueError("nystrom: points= belong to a kernel that is a function; K is a matrix here")
    if matrix.entries is None:
        raise TypeError("nystrom: needs the entries of K; for an operator use lowrank.svd")
    X = matrix.entries
    if X.ndim != 2 or X.shape[0] != X.shape[1]:
        raise ValueError(f"nystrom: needs one square matrix, got shape {tuple(X.shape)}")
    gap, size = float((X - X.mH).abs().max()), float(X.abs().max())
    if gap > 100 * torch.finfo(matrix.out_dtype).eps * size:
        raise ValueError(f"nystrom: K is not Hermitian: entries differ from their mirror images by {gap:.3g}")
    pairs = X.diagonal().real.clamp_min(0).sqrt()
    over = float((X.abs() - torch.outer(pairs, pairs)).max())
    if over > torch.finfo(matrix.out_dtype).eps ** 0.5 * size and float(X.diagonal().real.min()) >= 0:
        raise ValueError(
            f"nystrom: K is not positive semidefinite: an entry is {over:.3g} above the geometric mean of the diagonal "
            "entries of its row and column. For another matrix use lowrank.svd or lowrank.cur"
        )
    return _Source(len(X), lambda i, j: X[i[:, None], j], X.diagonal().real.clone(), matrix)


def _function(K: Callable[[Array, Array], Array], points: Array | None, block: int | None) -> _Source:
    if points is None:
        raise ValueError("nystrom: a kernel that is a function needs points=, one row for each of its arguments")
    matrix = entered(points if points.ndim > 1 else points[:, None], "nystrom")
    n = len(points)

    def entries(i: Tensor, j: Tensor) -> Tensor:
        rows, columns = (points[index if isinstance(points, Tensor) else index.numpy()] for index in (i, j))
        found = torch.as_tensor(K(rows, columns))
        undifferentiated(found, "nystrom", "let the kernel return .detach()ed numbers")
        if found.shape != (len(i), len(j)):
            raise ValueError(
                f"nystrom: the kernel must give an array of shape {(len(i), len(j))} for {len(i)} and {len(j)} points, "
                f"got {tuple(found.shape)}"
            )
        return found.to(matrix.dtype) if not found.is_complex() else found

    step = block or 64
    slices = torch.arange(n, device=matrix.device).split(step)
    diagonal = torch.cat([entries(part, part).diagonal().real for part in slices])
    return _Source(n, entries, diagonal, matrix)


def _checked(landmarks: Array, n: int) -> Tensor:
    index = torch.as_tensor(landmarks)
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool or not len(index):
        raise ValueError(f"nystrom: landmarks must be a flat array of ints, got {index.dtype} {tuple(index.shape)}")
    if int(index.min()) < 0 or int(index.max()) >= n or len(index.unique()) < len(index):
        raise ValueError(f"nystrom: landmarks must be different indices in 0..{n - 1}")
    return index.long()


def _found(
    source: _Source, stops: Stops, given: Tensor | None, kind: str | None, block: int | None, draw: torch.Generator
) -> Nystrom:
    """Choose the landmarks and return the result; the rest is checked to be semidefinite on its diagonal."""
    diagonal = source.diagonal.double()
    trace, eps = float(diagonal.sum()), torch.finfo(source.like.out_dtype).eps
    least = float(diagonal.min())
    if not bool(torch.isfinite(diagonal).all()) or least < -16 * eps * float(diagonal.abs().max()):
        raise ValueError(
            f"nystrom: the diagonal of K must be finite and not negative, its smallest entry is {least:.3g}"
        )
    floor = 16 * eps * diagonal.max()
    P = PartialCholesky.empty(source.entries, diagonal.clamp_min(0), source.like.dtype)
    allowed = float(stops.allowed(torch.tensor(trace, dtype=torch.float64)))
    if given is not None:
        for part in given.split(64):
            P.add(part.to(P.F.device), floor)
    elif kind == "uniform":
        order = torch.randperm(source.n, generator=draw, device=draw.device).to(P.F.device)
        for part in order.split(16):
            if len(P.landmarks) >= stops.limit or float(P.diagonal.sum()) <= allowed:
                break
            P.add(part[: stops.limit - len(P.landmarks)], floor)
    elif kind in (None, "rpcholesky"):
        size = block or min(64, max(4, stops.limit // 4))
        randomly_pivoted(P, limit=stops.limit, allowed=allowed, block=size, draw=draw, floor=floor)
    else:
        raise ValueError(f'nystrom: landmarks must be "rpcholesky", "uniform" or indices, got {kind!r}')
    return _result(source, _steadied(source, P, eps), trace, eps)


def _rest(source: _Source, P: PartialCholesky) -> Tensor:
    """Return the diagonal of K - F F^H for F as it goes out."""
    F = P.F.to(source.like.dtype_of(P.F)).to(P.F.dtype)
    return source.diagonal.double() - F.abs().double().square().sum(1)


def _steadied(source: _Source, P: PartialCholesky, eps: float) -> PartialCholesky:
    """Return P, or with the fewer of its landmarks that rounding allows; ValueError where K is not semidefinite.

    Landmarks that depend on each other to within t ||K|| turn rounding into eps k / t: so far below zero the rest may
    be by rounding alone. Where it is, they are chosen again with a larger t, up to sqrt(eps), and what is then still
    below zero is in K.
    """
    largest = float(source.diagonal.max())
    for level in (eps**0.75, eps**0.5):
        if float(_rest(source, P).min()) >= -(eps**0.5) * largest:
            return P
        P = P.restarted(source.diagonal, source.diagonal.new_tensor(level * largest))
    least = float(_rest(source, P).min())
    if least < -(eps**0.5) * largest:
        raise ValueError(
            f"nystrom: K is not positive semidefinite: a diagonal entry of K - F F^H is {least:.3g}. For "
            "another matrix use lowrank.svd or lowrank.cur"
        )
    return P


def _result(source: _Source, P: PartialCholesky, trace: float, eps: float) -> Nystrom:
    matrix, rank = source.like, len(P.landmarks)
    rows = P.F[P.landmarks]
    F = P.F.to(matrix.dtype_of(P.F))
    rest = _rest(source, P)
    noise = 2 * (rank + 1) ** 0.5 * eps * trace
    if rank:  # with W = F L^-1, rounding E of the landmarks' block moves F F^H by W E W^H
        W = torch.linalg.solve_triangular(rows.tril(), P.F, upper=False, left=False)
        size = float(source.diagonal.max()) * torch.linalg.vector_norm(W).double().square()
        noise += float(torch.finfo(P.F.dtype).eps * rank**0.5 * size)
    if matrix.out_dtype != matrix.dtype:
        noise += source.n**0.5 * eps * trace  # a kernel rounded to half precision is not quite semidefinite
    error = torch.tensor(float(rest.abs().sum()) + noise, dtype=torch.float64)
    return Nystrom.of(
        matrix.value(P.landmarks),
        matrix.value(F),
        rank=matrix.value(torch.tensor(rank)),
        error=matrix.value(error),
        trace=matrix.value(torch.tensor(trace, dtype=torch.float64)),
        evaluations=P.evaluations,
        root=matrix.value(rows),
    )
