"""The best ``x q(x^r)`` for the constant 1: one step of every iteration in this layer."""

from collections.abc import Sequence
from itertools import pairwise
from math import log2

import flint
from flint import acb_poly, arb, arb_mat, arb_poly

from spectrain.approx._balls.range import ball, precise
from spectrain.approx._polynomial import Polynomial
from spectrain.approx._schedules.reference import in_doubles

# Below this relative width of the interval all solutions agree with their limit to far more than any
# dtype holds; a wider interval than needed is still a bound.
_NARROWEST = 1e-40
# The exchange converges quadratically: nine rounds are the most that were seen, for 21 terms.
_MOST_ROUNDS = 60
# A third Newton step below this share of the gap around a point is at the zero, for all that the level can tell.
_SMALL_STEP = 1e-3
# Bits by which a step must be shorter than the root of the last: 2^-10 is the least gap next to an end.
_NEARLY = 10
# Coefficients of this size together, rounded one by one, move p by 1e-14 at most.
_HARMLESS = 64


def unit_step(lower: arb, upper: arb, terms: int, stride: int = 2) -> tuple[list[arb], arb]:
    """Coefficients c and error E of the best ``c0 x + c1 x^(r+1) + ... `` for 1 on [lower, upper].

    ``terms`` counts the coefficients, ``stride`` is r. With y = x^r this is the best polynomial of degree
    ``terms - 1`` for ``y^(-1/r)`` under the weight ``y^(1/r)``. Its error alternates ``terms + 1`` times, at both ends
    and at every zero of p' (article 10996, kexue.fm/archives/10996). Exchange (Remez): solve for the level at the
    reference, move the reference to the zeros of p', and repeat. Where p - 1 alternates at ``terms + 1`` points, p' has
    a zero around each inner one, so its ``terms - 1`` zeros are real, inside, and a reference with a higher level:
    the exchange converges from any start. That all zeros were found is checked by the signs of p' between them, in
    every round. Balls are used as high-precision numbers here; proofs are made elsewhere, from the result.

    Raises ValueError unless 0 < lower <= upper. 0.3 ms for three terms, 30 ms for twenty-one.
    """
    if not 0 < lower <= upper:
        raise ValueError(f"unit_step: needs 0 < lower <= upper, got [{float(lower)}, {float(upper)}].")
    width, rho = max(float((upper - lower) / upper), _NARROWEST), (lower / upper).mid()
    bits = _bits(width, float(rho), terms, stride)
    for precision in (bits, 2 * bits, 4 * bits):
        with precise(precision):
            start = arb(1) - ball(width).mid() if width == _NARROWEST else _larger(rho, ball(_lowest(terms)))
            found = _exchange(start, terms, stride)
            if found is not None:
                c, error = found if start <= rho else _centre(*found, rho, stride)
                return [(c[j] / upper ** (1 + j * stride)).mid() for j in range(terms)], error
    raise ArithmeticError(
        f"unit_step: {terms} terms with stride {stride} on [{float(lower)}, {float(upper)}] are not found in "
        f"{4 * bits} bits; take fewer terms."
    )


def _bits(width: float, rho: float, terms: int, stride: int) -> int:
    """Bits for the level, which falls like width^terms, from a system as ill-conditioned as that, and for 1 - E."""
    spread = min(0.5, stride * width / 2)
    return int(128 + 10 * terms + (2 * terms + 4) * log2(1 / spread) + 2 * log2(1 / max(rho, _lowest(terms))))


def _lowest(terms: int) -> float:
    """The relative lower end below which solutions are taken to agree with their limit: 2^-46 to 2^-28.

    Between the ends p comes down to 1 - E, which is of this size and must stand clear of what rounding the coefficients
    to doubles leaves (`round_coefficients`; measured: 2.3 times more for each term), or p falls below 0.
    """
    return 2.0 ** max(-46.0, 1.25 * terms - 54)


def _larger(a: arb, b: arb) -> arb:
    return a if a >= b else b


def _centre(c: list[arb], error: arb, rho: arb, stride: int) -> tuple[list[arb], arb]:
    """The step for an interval that ends below: scaled so that its values at rho and at its top are as far from 1."""
    first = sum((cj * rho ** (1 + j * stride) for j, cj in enumerate(c)), arb(0))
    factor = (2 / (first + 1 + error)).mid()
    return [(factor * cj).mid() for cj in c], (1 - factor * first).mid()


def _exchange(rho: arb, terms: int, stride: int) -> tuple[list[arb], arb] | None:
    """Coefficients and error on [rho, 1]; None where the working precision does not suffice."""
    near = in_doubles(float(rho), terms, stride)
    y = _chebyshev((rho**stride).mid(), terms) if near is None else [(rho**stride).mid(), *map(arb, near), arb(1)]
    # Steps square their distance to the end of the search: from the root of what is small one more is enough.
    small = (1 - y[0]) * arb(2) ** -(flint.ctx.prec // 3)
    nearly = (1 - y[0]) * arb(2) ** -(flint.ctx.prec // 6 + _NEARLY)
    for _ in range(_MOST_ROUNDS):
        c, error = _level(y, terms, stride)
        slope = arb_poly([c[j] * (1 + j * stride) for j in range(terms)])
        moved = _by_newton(slope, y) or _isolate(slope, y)
        if moved is None or not error > 0:
            return None
        far = max([abs(a - b) for a, b in zip(moved, y, strict=True)], key=float)
        if far < nearly:
            return (c, error) if far < small else _level(moved, terms, stride)
        y = moved
    return None


def _chebyshev(low: arb, terms: int) -> list[arb]:
    """Where the alternation points go as the interval shrinks, and a start for any other."""
    half, centre = (1 - low) / 2, (1 + low) / 2
    inner = [(centre - half * arb.cos_pi_fmpq(flint.fmpq(i, terms))).mid() for i in range(1, terms)]
    return [low, *inner, arb(1)]


def _level(y: list[arb], terms: int, stride: int) -> tuple[list[arb], arb]:
    """p and E with p(x_i) = 1 - (-1)^i E at the ``terms + 1`` points x_i = y_i^(1/r)."""
    rows = []
    for i, yi in enumerate(y):
        row = [yi.root(stride).mid()]
        for _ in range(terms - 1):
            row.append((row[-1] * yi).mid())
        rows.append([*row, arb((-1) ** i)])
    solution = arb_mat(rows).solve(arb_mat([[1]] * (terms + 1)), algorithm="approx")
    values = [solution[i, 0].mid() for i in range(terms + 1)]
    return values[:-1], values[-1]


def _by_newton(slope: arb_poly, y: list[arb]) -> list[arb] | None:
    """The reference with every inner point moved to its zero of ``slope``; None where a step was not yet a small one.

    Points that are not near the zeros would lower the level.
    """
    bend = slope.derivative()
    moved = [y[0]]
    for left, start, right in zip(y, y[1:], y[2:], strict=False):
        at, step = start, arb(0)
        for _ in range(3):
            step = (slope(at) / bend(at)).mid()
            at = (at - step).mid()
            if not left < at < right:
                return None
        if abs(step) > _SMALL_STEP * (right - left):
            return None
        moved.append(at)
    moved.append(y[-1])
    return moved if _are_separated(slope, moved) else None


def _are_separated(slope: arb_poly, y: list[arb]) -> bool:
    """Whether the points rise and ``slope`` changes its sign from each gap between them to the next.

    It is positive in the first gap, below the first maximum of p; of degree ``terms - 1`` it has no further zeros.
    """
    if not all(a < b for a, b in pairwise(y)):
        return False
    values = (slope((a + b) / 2) for a, b in pairwise(y))
    return all(v > 0 if i % 2 == 0 else v < 0 for i, v in enumerate(values))


def _isolate(slope: arb_poly, y: list[arb]) -> list[arb] | None:
    """The ends and all zeros of ``slope`` between them, isolated by balls; None where that fails."""
    try:
        zeros = acb_poly([slope[i] for i in range(slope.length())]).roots()
    except ValueError:
        return None
    inner = sorted((z.real.mid() for z in zeros if z.imag.contains(arb(0))), key=float)
    moved = [y[0], *inner, y[-1]]
    return moved if len(moved) == len(y) and _are_separated(slope, moved) else None


def round_coefficients(c: Sequence[arb], lower: arb, upper: arb, stride: int = 2) -> Polynomial:
    """The polynomial ``c0 x + c1 x^(r+1) + ...`` in doubles that stays closest to it on [lower, upper].

    Rounded one by one, coefficients of size M move p by u M: more than p itself for degree 41. So the highest is
    rounded first, and what it loses, d y^j with y = x^r, is made up by those below up to d times the monic Chebyshev
    polynomial of [lower^r, upper^r], which is 4^j / 2 times smaller; then the next one. (Where u M is harmless each is
    rounded alone.)
    """
    powers = tuple(1 + j * stride for j in range(len(c)))
    if sum(abs(cj) * upper**n for cj, n in zip(c, powers, strict=True)) < _HARMLESS:
        return Polynomial(powers, tuple(map(float, c)))
    rest = arb_poly(list(c))
    smallest = _monic(lower**stride, upper**stride, len(c))
    result: list[float] = []
    for j in reversed(range(len(c))):
        result.insert(0, float(rest[j].mid()))
        rest -= (rest[j] - ball(result[0])) * smallest[j]
    return Polynomial(powers, tuple(result))


def _monic(low: arb, high: arb, count: int) -> list[arb_poly]:
    """The monic Chebyshev polynomials of degrees 0, 1, ... on [low, high]."""
    y, quarter = arb_poly([-(low + high) / 2, 1]), (high - low) ** 2 / 16
    result = [arb_poly([1]), y]
    for j in range(1, count - 1):
        result.append(y * result[j] - (2 * quarter if j == 1 else quarter) * result[j - 1])
    return result
