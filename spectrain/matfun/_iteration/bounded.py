"""What came out of a fixed number of steps is looked at: a bound on its largest singular value, and a second try.

The schedules are safe by design (`spectrain.approx._schedules.widened`): rounding, as large as it can be in one
direction, leads no singular value out of the interval of the next polynomial. What a design cannot exclude is a matrix
whose rounding errors conspire, or one whose largest singular value the starting vectors of the power method missed.
Beyond its interval a quintic grows like the fifth power, so such a result is far from 1 and easily seen.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays import scale
from spectrain.matfun._iteration.largest import chirps

_VECTORS = 8
SMALL = 64
_SMALLEST = torch.finfo(torch.float32).tiny
_MOST = 1.1  # growth beyond which a result is not what its design allows, over 1 + the error of the schedule


@dataclass(slots=True)
class Tries:
    """How many matrices ``msign(steps=)`` and ``msign(schedule=)`` have computed here, and how many of them twice."""

    matrices: int = 0
    second: int = 0


_total = Tries()
_waiting: dict[torch.device, Tensor] = {}  # counts on devices, which are read only when somebody asks
_lock = threading.Lock()


def tries() -> Tries:
    """Return the counts of this process so far, as a copy.

    A second try is one that the first result made necessary: its largest singular value was beyond what the schedule
    allows. It is made in the next wider dtype (float64 after float32) from a bound on the norm that always holds.

    >>> before = tries()
    >>> from spectrain.matfun import msign
    >>> Y = msign(torch.eye(3), steps=3)
    >>> tries().matrices - before.matrices, tries().second - before.second
    (1, 0)
    """
    with _lock:
        return Tries(_total.matrices, _total.second + sum(int(count) for count in _waiting.values()))


def sizes_of(Ys: Sequence[Float[Tensor, "_ _ _"]]) -> list[Float[Tensor, " _"]]:
    """Return what tells whether results in fine arithmetic are within bounds: their growth, of small ones the mean."""
    look = root_mean_square if min(Ys[0].shape[-2:]) <= SMALL else growth
    return [look(Y) for Y in Ys]


def within_bounds(
    Ys: list[Float[Tensor, "_ _ _"]],
    sizes: list[Float[Tensor, " _"]],
    error: float,
    again: Callable[[int, Bool[Tensor, " b"]], Tensor],
) -> list[Float[Tensor, "_ _ _"]]:
    """Return batches of results of a schedule with this error, those of a size beyond its bounds replaced, in place.

    ``again(i, which)`` makes those of batch i anew. A graph cannot choose, and to look at a value would make a device
    wait: there results beyond bounds are divided by their size instead, which leaves them bounded by 1 and useless.
    Both are counted, except in a graph.
    """
    if scale.recording() or Ys[0].device.type != "cpu":
        if not scale.recording():
            _count(sum(map(len, Ys)), ~_within(torch.cat(sizes), error))
        return [Y * kept_within(size, error)[:, None, None].to(Y.dtype) for Y, size in zip(Ys, sizes, strict=True)]
    second = 0 if bool(_within(torch.cat(sizes), error).all()) else _replace(Ys, sizes, error, again)
    _count(sum(map(len, Ys)), second)
    return Ys


def _within(size: Float[Tensor, " b"], error: float) -> Bool[Tensor, " b"]:
    return size <= _MOST * (1 + error)  # NaN is beyond every bound


def _replace(
    Ys: list[Tensor], sizes: Sequence[Tensor], error: float, again: Callable[[int, Bool[Tensor, " b"]], Tensor]
) -> int:
    """Make anew what is beyond bounds, and say so; return how many that were."""
    second = 0
    for i, (Y, size) in enumerate(zip(Ys, sizes, strict=True)):
        wrong = ~_within(size, error)
        if bool(wrong.any()):
            second += int(wrong.sum())
            Y[wrong] = again(i, wrong).to(Y.dtype)
    warnings.warn(
        f"msign: {second} of {sum(map(len, Ys))} matrices left the bounds of their schedule and were computed a second "
        "time, in a wider dtype; matfun.planning.tries() counts them",
        RuntimeWarning,
        stacklevel=2,
    )
    return second


def _count(matrices: int, wrong: Tensor | int) -> None:
    with _lock:
        _total.matrices += matrices
        if isinstance(wrong, Tensor):
            _waiting[wrong.device] = _waiting.get(wrong.device, 0) + wrong.sum()
        else:
            _total.second += wrong


def growth(Y: Float[Tensor, "b m n"]) -> Float[Tensor, " b"]:
    """Return the most that Y Y^T makes of eight vectors after three products by it or its parts: at most sigma_max(Y).

    Chirps v, then ||Y^T w|| / ||w|| for w = Y Y^T v. It is sigma_max where that stands out from the others by a factor
    of k^(1/6), k the short side, and at least their root mean square elsewhere; NaN where Y is not finite. Cost: three
    products with eight rows, 3 % of a call from a short side of 128 on, more where calls are made of overhead.
    """
    wide = Y if Y.shape[-2] <= Y.shape[-1] else Y.mT
    V = chirps(wide.shape[-2], _VECTORS, wide).mT.expand(len(wide), -1, -1)
    W = torch.bmm(torch.bmm(V, wide), wide.mT)  # what overflows here is seen by that
    return (_length(torch.bmm(W, wide)) / _length(W).clamp_min(_SMALLEST)).amax(-1)


def root_mean_square(Y: Float[Tensor, "b m n"]) -> Float[Tensor, " b"]:
    """Return that of the singular values, on the short side: for small matrices in fine arithmetic, where eight vectors
    would cost a quarter of the call. A value of 0.46 sqrt(k) shows, and what leaves its interval there grows past all.
    """
    return torch.linalg.vector_norm(Y, dim=(-2, -1)) / min(Y.shape[-2:]) ** 0.5


def size_by_distance(E: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return the fourth root of the mean fourth power of the singular values of Y, from E = Y Y^T - I.

    A value of 0.83 k^(1/4) shows, 3.3 for k = 256: in half precision, where E costs less than products with eight rows
    and serves :func:`spectrain.matfun._iteration.finish.finish_smallest` as well. NaN where E is not finite.
    """
    k = E.shape[-1]
    wide = torch.promote_types(E.dtype, torch.float32)
    trace = E.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=wide)
    mean = (torch.linalg.vector_norm(E, dim=(-2, -1)).to(wide).square() + 2 * trace) / k + 1
    return mean.clamp_min(0).sqrt().sqrt()  # no root of what rounding makes of 0; NaN stays


def growth_by_gram(R: Float[Tensor, "k k"], G: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    """Return the :func:`growth` of Y = R X from G = X X^T alone, where no one has all of X: Y Y^T = R G R^T."""
    V = chirps(len(G), _VECTORS, G)[0].mT
    W = V @ R @ G @ R.mT
    return (_length(W @ R @ G @ R.mT) / _length(W).clamp_min(_SMALLEST)).amax().sqrt()


def kept_within(size: Float[Tensor, "*b"], error: float) -> Float[Tensor, "*b"]:
    """Return the factor that brings a result of this growth within bounds: 1 where it is."""
    return torch.where(size <= _MOST * (1 + error), 1.0, 1 / size)


def _length(V: Float[Tensor, "*b v k"]) -> Float[Tensor, "*b v"]:
    return torch.linalg.vector_norm(V, dim=-1, dtype=torch.promote_types(V.dtype, torch.float32))
