"""The Nystrom approximation of a positive semidefinite kernel, with the trace of what it leaves."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from spectrain._arrays.generators import Generator, repeating_generator
from spectrain._arrays.kinds import Real, tensor_of, way_out
from spectrain._arrays.typed import Generic, Held, Ndarray, results
from spectrain.lowrank._derivatives import refuse_derivative
from spectrain.lowrank._matrix.cholesky import PartialCholesky, randomly_pivoted
from spectrain.lowrank._matrix.error import frobenius, product_noise
from spectrain.lowrank._matrix.kernel import Source, indefinite, of_function, of_matrix
from spectrain.lowrank._matrix.matrix import Array
from spectrain.lowrank._matrix.result import Factorization, widen
from spectrain.lowrank._matrix.scale import exponent_of, scale_by
from spectrain.lowrank._matrix.stops import Stops, check_stops

_PART, _ROWS, _ENTRIES = 16, 1024, 2**21  # landmarks taken, rows and entries looked at, at once
Landmarks: TypeAlias = Literal["rpcholesky", "uniform"] | Array | None


class _Letters(NamedTuple, Generic[Held]):
    landmarks: Held
    F: Held


class Nystrom(Factorization[Held], _Letters[Held]):
    """K ~ F F^H, with F F^H = K[:, landmarks] K[landmarks, landmarks]^+ K[landmarks, :]; the rest is semidefinite.

    ``error`` bounds the trace of K - F F^H, which is its nuclear norm and bounds the Frobenius and the spectral one;
    ``trace`` is that of K, ``evaluations`` the number of entries of K that were computed.
    """

    trace: Held
    evaluations: int
    root: Held  # lower triangular L with L L^H = K[landmarks, landmarks]

    def chain(self) -> Sequence[Array]:
        """Return F and F^H."""
        F = widen(self.F)
        return F, F.mH if isinstance(F, Tensor) else F.conj().T

    def features(self, columns: Array) -> Array:
        """Return K[new, landmarks] L^-H for new points: inner products of these rows approximate K[new, new].

        ``columns`` is K[new, landmarks], as the kernel gives it for the new points and ``points[landmarks]``.
        """
        C, L = tensor_of(columns, "features"), tensor_of(self.root, "features")
        if C is None or L is None:
            raise TypeError(f"features: needs an array, as the kernel gives it, got {type(columns).__name__}")
        found = torch.linalg.solve_triangular(L.mH, C.to(L.dtype), upper=True, left=False)
        return way_out(columns, "features")(found)


@results(Nystrom[Tensor], Nystrom[Ndarray], Nystrom[Any])
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

    K is a matrix (n, n), dense, an array or sparse (torch's or SciPy's), or a function of two sets of points, K(X, Y)
    of shape (len(X), len(Y)), with ``points`` (n, ...): then only the diagonal and the columns of landmarks are
    computed. ``landmarks``:

    - ``"rpcholesky"`` (None): randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber 2022): the next landmark with
      probability proportional to the diagonal of the rest. E trace(K - F F^H) <= (1 + e) trace(K - K_r) for k >=
      r / e + r log(1 / (e h)) landmarks, h = trace(K - K_r) / trace(K), K_r the best of rank r. In blocks by rejection
      sampling, of the same law (Epperly, Tropp and Webber 2024).
    - ``"uniform"``: each point alike, what scikit-learn does. No guarantee.
    - indices: these, in this order, up to a stop.

    Stops: ``rank``, the number of landmarks; ``rtol`` and ``atol``, bounds on trace(K - F F^H), relative to trace(K)
    or absolute; whichever comes first; none are needed where landmarks are given. Landmarks that add nothing but
    rounding are left out, so ``.rank`` may be smaller. A tolerance that rounding or the landmarks do not allow is told
    by a RuntimeWarning. ``.error`` is the trace of the rest, exact up to rounding, which is added, and of a matrix K
    never less than the Frobenius norm of the rest. The diagonal of the function is taken in slices of ``block`` points.

    Errors: ValueError where K is not square, not Hermitian, or has a negative diagonal or, by more than sqrt(eps) of
    the largest, a negative rest: then it is not semidefinite; where the rest of a matrix has a Frobenius norm above its
    trace by more than n sqrt(eps); where a function is one of two single points, gives NaN, or other numbers for the
    same points. A function is looked at in the columns of landmarks alone, so there K is taken to be semidefinite.
    TypeError for operators: use :func:`svd`. Not batched, not differentiable.

    Cost: (rank + 1) n evaluations and n rank^2; of a matrix n^2 rank more. Of a sparse one at most 2**21 entries, or a
    row, are dense at once. Shapes: landmarks (r,), F (n, r).

    >>> X = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    >>> found = nystrom(lambda A, B: torch.exp(-torch.cdist(A, B).square()), points=X, rtol=1e-6)
    >>> found.F.shape[1] < 10, bool(found.error <= 50e-6)
    (True, True)
    """
    draw = repeating_generator(generator, "nystrom")
    for given_tensor in (K, points):
        if isinstance(given_tensor, Tensor):
            refuse_derivative(given_tensor, "nystrom", "pass it .detach()ed")
    if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
        raise ValueError(f"nystrom: block must be an int of at least 1, got {block!r}")
    source = of_function(K, points, block) if callable(K) and not hasattr(K, "shape") else of_matrix(K, points)
    n = source.n
    given = None if landmarks is None or isinstance(landmarks, str) else _check(landmarks, n)
    stops = check_stops((n, n), rank=rank, rtol=rtol, atol=atol, name="nystrom", required=given is None)
    with torch.no_grad(), torch.autocast(source.like.device.type, enabled=False):
        return _find(source, stops, given, landmarks if isinstance(landmarks, str) else None, block, draw)


def _check(landmarks: Array, n: int) -> Tensor:
    try:
        index = torch.as_tensor(landmarks)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"nystrom: landmarks must be a flat array of ints, got {landmarks!r}") from error
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool or not len(index):
        raise ValueError(f"nystrom: landmarks must be a flat array of ints, got {index.dtype} {tuple(index.shape)}")
    if int(index.min()) < 0 or int(index.max()) >= n or len(index.unique()) < len(index):
        raise ValueError(f"nystrom: landmarks must be different indices in 0..{n - 1}")
    return index.long()


def _find(
    source: Source, stops: Stops, given: Tensor | None, kind: str | None, block: int | None, draw: torch.Generator
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
    allowed = float(stops.allowance(torch.tensor(trace, dtype=torch.float64)))
    if kind in (None, "rpcholesky") and given is None:
        size = block or min(64, max(4, stops.limit // 4))
        randomly_pivoted(P, limit=stops.limit, allowed=allowed, block=size, draw=draw, floor=floor)
    elif kind in (None, "uniform"):
        order = torch.randperm(source.n, generator=draw, device=draw.device) if given is None else given
        for part in order.to(P.F.device).split(_PART):
            if len(P.landmarks) >= stops.limit or float(P.diagonal.sum()) <= allowed:
                break
            P.add(part[: stops.limit - len(P.landmarks)], floor)
    else:
        raise ValueError(f'nystrom: landmarks must be "rpcholesky", "uniform" or indices, got {kind!r}')
    found = _result(source, _steady(source, P, eps), trace, eps)
    _warn_of(float(found.error), allowed, stops, int(found.rank), given)
    return found


def _warn_of(error: float, allowed: float, stops: Stops, rank: int, given: Tensor | None) -> None:
    """Warn where a tolerance was asked for and is not kept, and no rank was the stop."""
    if not stops.by_error or error <= allowed or (rank >= stops.limit and stops.limit < stops.full):
        return
    why = "rounding allows no less: pass a wider dtype" if given is None else "these landmarks leave more: add some"
    warnings.warn(
        f"nystrom: the error is {error:.3g} and not the {allowed:.3g} asked for; {why}, or allow more",
        RuntimeWarning,
        stacklevel=4,
    )


def _rest(source: Source, P: PartialCholesky) -> Tensor:
    """Return the diagonal of K - F F^H for F as it goes out."""
    F = P.F.to(source.like.dtype_of(P.F)).to(P.F.dtype)
    return source.diagonal.double() - F.abs().double().square().sum(1)


def _steady(source: Source, P: PartialCholesky, eps: float) -> PartialCholesky:
    """Return P, or with the fewer of its landmarks that rounding allows; ValueError where K is not semidefinite.

    Landmarks that depend on each other to within t ||K|| turn rounding into eps k / t: so far below zero the rest may
    be by rounding alone. Where it is, they are chosen again with a larger t, up to sqrt(eps), and what is then still
    below zero is in K.
    """
    largest = float(source.diagonal.max())
    for level in (eps**0.75, eps**0.5):
        if float(_rest(source, P).min()) >= -(eps**0.5) * largest:
            return P
        P = P.restart(source.diagonal, source.diagonal.new_tensor(level * largest))
    least = float(_rest(source, P).min())
    if least < -(eps**0.5) * largest:
        raise indefinite(f"a diagonal entry of K - F F^H is {least:.3g}")
    return P


def _result(source: Source, P: PartialCholesky, trace: float, eps: float) -> Nystrom:
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
    error = torch.tensor(_measure_error(source, F, float(rest.abs().sum()) + noise, eps), dtype=torch.float64)
    return Nystrom.of(
        matrix.value(P.landmarks),
        matrix.value(F),
        rank=matrix.value(torch.tensor(rank)),
        error=matrix.value(error),
        trace=matrix.value(torch.tensor(trace, dtype=torch.float64)),
        evaluations=P.evaluations,
        root=matrix.value(rows),
    )


def _measure_error(source: Source, F: Tensor, error: float, eps: float) -> float:
    """Return the error, or the Frobenius norm of K - F F^H where that is larger, of a K whose entries are there.

    Of a semidefinite rest the trace is the larger one. Where it is not, by rounding, the norm is what is left; by more,
    K is not semidefinite, though its diagonal did not tell.
    """
    if source.rows is None:
        return error
    k, wide = exponent_of(source.diagonal), F.to(source.like.dtype)
    rows = min(_ROWS, max(1, _ENTRIES // source.n))
    sizes, noises = [], []
    for K, part in zip(source.rows(rows), wide.split(rows), strict=True):
        sizes.append(float(frobenius(scale_by(K - part @ wide.mH, -k))))
        noises.append(float(product_noise(scale_by(K, -k), F.shape[1])))
    size = (math.hypot(*sizes) + math.hypot(*noises)) * 2.0 ** (k // 2) * 2.0 ** (k - k // 2)
    if size > error + source.n * eps**0.5 * float(source.diagonal.max()):
        raise indefinite(f"K - F F^H has trace {error:.3g} and the larger Frobenius norm {size:.3g}")
    return max(error, size)
