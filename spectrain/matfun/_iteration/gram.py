"""The Gram iteration: polynomials are multiplied on the short side, and the matrix itself is touched once or twice.

With G = X X^T, k x k, the steps x -> x q_t(x^2) become R <- q_t(G) R, G <- q_t(G) G q_t(G), and R X at the end.
Source: Gram Newton-Schulz (Dao-AILab, 2026). There negative eigenvalues that rounding gives to G grow with every step;
:func:`safe_cuts` decides where G has to be formed anew, from the interval of the schedule and the dtype.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.graphs import constant_in_graphs
from spectrain._arrays.products import symmetric_baddbmm, symmetric_bmm
from spectrain.approx import Polynomial, Schedule
from spectrain.approx.internal import MOST_CUTS, Steps, fewest_cuts, odd_coefficients, odd_part
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.largest import start_bound
from spectrain.matfun._iteration.plain import Start, grams, parts, product, times, without_identity

_SUMS = 16.0  # roundoffs of a product whose sums are no wider than its entries: about the root of the number of terms

Interval: TypeAlias = tuple[float, float]


def safe_cuts(schedule: Schedule, dtype: torch.dtype) -> tuple[int, ...] | None:
    """Return before which steps G is formed anew, as few as are safe, or None where three are not enough.

    Safe means: with every eigenvalue of every G moved by 0.3 u ||G|| either way, u the unit roundoff of dtype, the
    singular values after each segment, and its slope at zero, stay within 10 % of where exact arithmetic brings
    them, and the singular values after the last one within max(error of the schedule, 4 u). A negative eigenvalue -e
    would become -e q(-e)^2, with q at its largest there: it is cut off before it matters, because a Gram matrix that
    is formed anew has none. Perturbations that do not commute with G cost as much here as in the plain iteration.

    Safe means further: with every rounding of a segment as large as u allows, no singular value comes to stand where
    the polynomials that are left could carry it past the end of their intervals
    (`spectrain.approx._schedules.cuts`). In bfloat16 two steps on one Gram matrix move the largest value by a
    quarter in the worst case: there only the last steps of long schedules share one, and the plain form is taken
    instead.

    >>> from spectrain.approx import sign_schedule
    >>> safe_cuts(sign_schedule(1e-2, steps=4, dtype="float32"), torch.float32)
    ()
    >>> safe_cuts(sign_schedule(3e-3, steps=5, dtype="bfloat16"), torch.bfloat16) is None
    True
    """
    known = len(schedule.intervals) > len(schedule.polynomials)  # else made by hand, nothing is known
    return _constant(coefficients(schedule), tuple(schedule.intervals), schedule.error, dtype) if known else None


def coefficients(schedule: Schedule) -> Steps:
    """Return the odd coefficients of every polynomial."""
    return _kept(schedule.polynomials) if not torch.compiler.is_compiling() else odd_coefficients(schedule.polynomials)


_kept = functools.lru_cache(maxsize=256)(odd_coefficients)


def gram_cuts(
    schedule: Schedule, dtype: torch.dtype, shape: tuple[int, ...], *, always: bool = False
) -> tuple[int, ...] | None:
    """Return before which steps the Gram iteration restarts, where it is safe and takes less work, else None.

    For quintics and ordinary products that is from an aspect of about 1.5 on; every restart moves it up. With
    ``always`` the price does not count, and a schedule for which it is not safe is a ValueError.
    """
    short, long = sorted(shape[-2:])
    cuts = safe_cuts(schedule, dtype)
    if always and cuts is None:
        raise ValueError(
            f'msign: method="gram" is not safe in {dtype} for a schedule on {schedule.interval}: even '
            f"with {MOST_CUTS} restarts rounding could carry values out of its intervals. Use "
            'method="plain" or a wider dtype'
        )
    if cuts is None or always:
        return cuts
    steps, aspect = coefficients(schedule), long / short
    return cuts if gram_products(steps, cuts, aspect) < plain_products(steps, aspect) else None


def plain_products(steps: Steps, aspect: Real) -> Real:
    """Return the price of the plain iteration in products of k x k: for each step, two with the long side, and q."""
    return 2 * aspect * len(steps) + _inner(steps)


def gram_products(steps: Steps, cuts: tuple[int, ...], aspect: Real) -> Real:
    """Return the price of the Gram iteration: per segment, two with the long side, q, and three from step to step."""
    segments = len(cuts) + 1
    return 2 * aspect * segments + _inner(steps) + 3 * (len(steps) - segments)


def _inner(steps: Steps) -> int:
    """Return how many products of k x k form q(G), as `without_identity` does it, over all steps."""
    return sum([len(c) // 2 for c in steps])


@constant_in_graphs
def _constant(
    steps: Steps, intervals: tuple[Interval, ...], error: float, dtype: torch.dtype
) -> tuple[int, ...] | None:
    return fewest_cuts(steps, intervals, error, torch.finfo(dtype).eps / 2, _SUMS if dtype.itemsize >= 4 else 1.0)


def gram_iteration(
    Xs: list[Float[Tensor, "_ _ _"]],
    polynomials: tuple[Polynomial, ...],
    *,
    start: Start,
    upper: Real = 1.0,
    cuts: tuple[int, ...] = (),
) -> list[Float[Tensor, "_ _ _"]]:
    """Return the composition of the polynomials at every X, batches of any shapes with one short side k, as one batch.

    Each X is first scaled so that ``upper`` bounds its largest singular value; ``start`` is used up. Before the
    steps in ``cuts`` G is formed from the matrices as they stand there. Tall X become X R^T: as rounded, R is a
    product of factors that do not commute, and in the other order the error in bfloat16 is twice as large. Cost in
    products of k x k, a the aspect, for T polynomials of degree 5: 2 a + 4 T - 3, and 2 a - 3 for each restart; step by
    step it is (2 a + 1) T.
    """
    B, G, r = start.scaled(odd_part(polynomials[0]), upper)
    first: tuple[Tensor | None, Tensor | None] = (B, r)
    for begin, stop in itertools.pairwise((0, *cuts, len(polynomials))):
        if begin:
            G, first = grams(Xs), (None, None)  # scaled already, by the first segment
        R = _multiplier(G, odd_coefficients(polynomials[begin:stop]), *first)
        Xs = [
            product(part if X.shape[-2] <= X.shape[-1] else part.mT, X)
            for part, X in zip(parts(R, Xs), Xs, strict=True)
        ]
    return Xs


def multiplier(G: Float[Tensor, "b k k"], segment: Sequence[Sequence[float]], *, upper: Real | None = None) -> Tensor:
    """Return R with R X the steps of the segment at X, from G = X X^T alone, which is used up.

    With ``upper`` X, of Frobenius norm at most 1, is first scaled so that this bounds its largest singular value.
    """
    if upper is None:
        return _multiplier(G, segment, None, None)
    G2 = symmetric_bmm(G, G)
    B, G, r = Start(G, G2, start_bound(G2)).scaled(segment[0], upper)
    return _multiplier(G, segment, B, r)


def _multiplier(
    G: Float[Tensor, "b k k"], segment: Sequence[Sequence[float]], first: Tensor | None, r: Tensor | None
) -> Float[Tensor, "b k k"]:
    """Return r R with R X the steps of the segment at X, from G = X X^T, which is used up.

    ``first`` is the part without its constant of the first step at G, where it is known.
    """
    R = None
    for i, c in enumerate(segment):
        B = without_identity(G, c) if i > 0 or first is None else first
        if i < len(segment) - 1:
            # q G q in two products, each of matrices that commute, so that the result is symmetric. c[0] is added to
            # the product: on the diagonal of B it would make the rounding of B relative to c[0].
            M = symmetric_baddbmm(G, B, G, beta=c[0])
            G = symmetric_baddbmm(M, M, B, beta=c[0])
        if R is None:
            R = B.clone() if i < len(segment) - 1 else B
            R.diagonal(dim1=-2, dim2=-1).add_(c[0])
        else:
            R = symmetric_baddbmm(R, B, R, beta=c[0])
    assert R is not None
    return R if r is None else times(R, r)
