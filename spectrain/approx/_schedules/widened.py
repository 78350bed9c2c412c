"""How far rounding carries the largest singular value in one step, and whether all steps together stay in bounds.

One step of an iteration rounds three matrices to the working dtype, u its unit roundoff: G = X X^T, then
B = c_1 G + c_2 G^2 + ..., then Y = c_0 X + B X. Let the singular values of X lie in [0, h]. An error of norm
u ||G|| moves B by |b'(g)| u h^2 at g = x^2, with b(g) = c_1 g + c_2 g^2 + ..., and so on, hence

    |y - p(x)| <= u (x |b'(x^2)| h^2 + x max|b| + max|p|).

For diagonal matrices (and numbers) this is a theorem to first order in u. For dense ones an error matrix with entries
within u |a_ij| has spectral norm at most u sqrt(k) ||A||, which errors of independent signs do not come near: in every
bfloat16 step, emulated, on 140,000 matrices of fourteen families the largest excess over max p was 0.89 of the bound at
short sides of 1 to 64, and 0.75 at 128 to 512 (benchmarks/matfun/msign_safety.py, with two million results). What
goes past all the same is seen in the result (`spectrain.matfun`).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from spectrain.approx._polynomial import Polynomial

UNIT_ROUNDOFF = {
    "bfloat16": 2.0**-8,
    "float16": 2.0**-11,
    "tfloat32": 2.0**-11,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}
"""Of the operands of a matrix product; sums are accumulated in float32 or better."""

FINE = 1e-5
"""Roundoff up to which effects of rounding add up to nothing that a design must give way to."""

Array = np.ndarray
Steps: TypeAlias = tuple[tuple[float, ...], ...]
"""Odd coefficients of every polynomial."""

_POINTS = 513
_GRID = np.linspace(0.0, 1.0, _POINTS)
_AT_ONCE = 24  # compositions whose values on the grid stay in a cache
_TINY = 1e-5  # what maxima over the grid may miss, relative: an eighth of a squared gap times a second derivative
_UNSEEN = 1e-13  # of the terms of p: what rounding in doubles may take from a maximum
_SAFE = 4.0
_NOTHING = 1e-6  # relative; in float64 more than rounding, and nothing all the same
_HUGE, _WIDEST = 1e30, 1e3


def widened_top(c: Sequence[float], high: float, u: float, *, first: bool = False) -> float:
    """The most that one rounded step can make of singular values in [0, high]: max p and the rounding on top of it.

    ``c`` are the odd coefficients, p(x) = c[0] x + c[1] x^3 + ... In a ``first`` step G^2, which also bounds the norm,
    is rounded by itself before it is combined with G: another u x (|c[2]| high^4 + |c[3]| high^6 + ...). Beyond degree
    5 so are the powers of G in every step, and the sums of two terms.

    >>> 1 < widened_top((1.875, -1.25, 0.375), 1.0, 2.0**-8) < 1.015
    True
    """
    return widened_top_of_each([(tuple(c), high, first)], u)[0]


@np.errstate(over="ignore", invalid="ignore")
def widened_top_of_each(steps: Sequence[tuple[tuple[float, ...], float, bool]], u: float) -> list[float]:
    """:func:`widened_top` for coefficients, ends and whether they come first, those alike together."""
    groups = defaultdict(list)
    for c, high, first in dict.fromkeys(steps):  # candidates that begin alike have steps in common
        groups[len(c), first].append((c, high))
    found = {}
    for (_, first), alike in groups.items():
        for some in (alike[i : i + _AT_ONCE] for i in range(0, len(alike), _AT_ONCE)):
            for (c, high), top in zip(some, _tops_alike(some, u, first=first), strict=True):
                found[c, high, first] = top
    return [found[step] for step in steps]


def _tops_alike(steps: list[tuple[tuple[float, ...], float]], u: float, *, first: bool) -> list[float]:
    c, square = np.array([c for c, _ in steps]).T[..., None], _column([high**2 for _, high in steps])
    x = _column([high for _, high in steps]) * _GRID
    g = x * x
    b = _horner([0.0 * c[0], *c[1:]], g)
    p = x * (c[0] + b)
    total, added = np.abs(p), np.zeros(len(steps))
    if u:
        slope = _horner([j * cj for j, cj in enumerate(c)][1:], g)
        rounding = u * (x * np.abs(slope) * square + x * _largest(b) + _largest(p))
        apart = first + 2 * (len(c) > 3)
        if apart:
            powers = [sum([abs(v) * h ** (2 * j) for j, v in enumerate(row) if j > 1], 0.0) for row, h in steps]
            rounding = rounding + apart * u * x * _column(powers)
        total, added = total + rounding, (1 + _TINY) * rounding.max(axis=1)
    # Between its points the grid misses a little of a maximum inside, at the end it misses nothing. Where u is small
    # that little is the larger part, and a repelling fixed point makes much of it: there the two maxima are added.
    by_grid = np.maximum(total[:, :-1].max(axis=1) + _TINY * np.ptp(p, axis=1), total[:, -1])
    return [
        top if top <= seen + more - _UNSEEN * _mass(row, h) else min(top, largest_value(row, h) + more)
        for top, seen, more, (row, h) in zip(
            by_grid.tolist(), _largest(p)[:, 0].tolist(), added.tolist(), steps, strict=True
        )
    ]


def _column(values: Sequence[float]) -> Array:
    return np.array(values, dtype=float)[:, None]


def _largest(rows: Array) -> Array:
    return np.abs(rows).max(axis=1, keepdims=True)


def _horner(c: Sequence[Array], g: Array) -> Array:
    """c[0] + c[1] g + c[2] g^2 + ... with a coefficient for each row."""
    value = np.zeros_like(g)
    for cj in reversed(c):
        value = value * g + cj
    return value


def _mass(c: Sequence[float], high: float) -> float:
    """What the terms of p add up to at the end, and all that rounding them here is a part of."""
    return sum([abs(cj) * high ** (1 + 2 * j) for j, cj in enumerate(c)])


def largest_value(c: Sequence[float], high: float) -> float:
    """The largest |p| on [0, high], at the end or where p' = c[0] + 3 c[1] g + 5 c[2] g^2 + ... vanishes, g = x^2.

    >>> largest_value((1.5, -0.5), 2.0), largest_value((1.5, -0.5), 3.0)
    (1.0, 9.0)
    """
    square = high * high
    inside = [math.sqrt(g) for g in _turns([(2 * j + 1) * cj for j, cj in enumerate(c)]) if 0 < g < square]
    return max([abs(x * _value(c, x * x)) for x in (*inside, high)])


def _turns(d: Sequence[float]) -> Sequence[float]:
    """The real zeros of d[0] + d[1] g + d[2] g^2 + ...; of complex ones the real part, where no harm is done.

    In closed form up to a square, which is what thousands of quintics need in every design. A discriminant that
    rounding makes negative is that of a double zero, where p only halts: the end is as high.
    """
    if len(d) == 3 and d[2] != 0:
        # Half the sum of the zeros with the sign that does not cancel; the other zero follows from their product.
        inner = d[1] * d[1] - 4 * d[2] * d[0]
        q = -0.5 * (d[1] + math.copysign(math.sqrt(max(inner, 0.0)), d[1]))
        return (q / d[2], d[0] / q) if q != 0 else (0.0,)
    if len(d) == 2 and d[1] != 0:
        return (-d[0] / d[1],)
    return [float(g.real) for g in np.roots(d[::-1])]


def _value(c: Sequence[float], g: float) -> float:
    """c[0] + c[1] g + c[2] g^2 + ..., by Horner's rule."""
    value = 0.0
    for cj in reversed(c):
        value = value * g + cj
    return value


def widened_tops(steps: Steps, high: float, u: float) -> tuple[float, ...]:
    """Where the largest singular value may stand before each rounded step and after the last one.

    >>> from spectrain.approx import sign_schedule
    >>> exact, safe = sign_schedule(3e-3, steps=5), sign_schedule(3e-3, steps=5, dtype="bfloat16")
    >>> widened_tops(odd_coefficients(exact.polynomials), 1.0, 2.0**-8)[-1] > 1000
    True
    >>> widened_tops(odd_coefficients(safe.polynomials), 1.0, 2.0**-8)[-1] < 1.05
    True
    """
    return _chains([steps], high, u)[0]


def _chains(many: Sequence[Steps], high: float, u: float) -> list[tuple[float, ...]]:
    """:func:`widened_tops` of several compositions."""
    tops = [[high] for _ in many]
    for t in range(max(map(len, many), default=0)):
        # Powers of what is lost would leave the range of doubles.
        live = [i for i, steps in enumerate(many) if len(steps) > t and not tops[i][-1] > _WIDEST]
        found = dict(zip(live, widened_top_of_each([(many[i][t], tops[i][-1], t == 0) for i in live], u), strict=True))
        for i, steps in enumerate(many):
            if len(steps) > t:
                tops[i].append(min(found.get(i, _HUGE), _HUGE))
    return [tuple(chain) for chain in tops]


def is_safe(steps: Steps, high: float, u: float) -> bool:
    """Whether rounding all steps moves the largest value by no more than four times what rounding the last one does.

    Then no step leaves its interval: beyond its end errors grow tenfold a step. Steps that do not even keep the exact
    values bounded are not.
    """
    return are_safe([steps], high, u)[0]


def are_safe(many: Sequence[Steps], high: float, u: float) -> list[bool]:
    """:func:`is_safe` of several compositions, for a tenth of the time of one after another."""
    exact, widened = (_chains(many, high, unit) for unit in (0.0, u))
    bounded = [i for i, tops in enumerate(exact) if tops[-1] < _HUGE]
    last = dict(
        zip(
            bounded,
            widened_top_of_each([(many[i][-1], exact[i][-2], len(many[i]) == 1) for i in bounded], u),
            strict=True,
        )
    )

    def safe(before: tuple[float, ...], after: tuple[float, ...], rounded: float) -> bool:
        return after[-1] <= before[-1] + max(_SAFE * (rounded - before[-1]), _NOTHING * before[-1])

    return [i in last and safe(exact[i], widened[i], last[i]) for i in range(len(many))]


def rooms(steps: Steps, limit: float, u: float) -> tuple[float, ...]:
    """The largest value before each step from which rounded steps cannot lead beyond ``limit``, by bisection."""
    found = [limit]
    for t, c in reversed(list(enumerate(steps))):
        low, high = 0.0, _WIDEST
        for _ in range(60):  # the largest value only rises with the end; 60 halvings are more than doubles hold
            middle = (low + high) / 2
            fits = widened_top(c, middle, u, first=t == 0) <= found[0] * (1 + _TINY)  # the grid moves with its end
            low, high = (middle, high) if fits else (low, middle)
        found.insert(0, low)
    return tuple(found)


def guarded(steps: Sequence[Polynomial], high: float, u: float) -> tuple[Polynomial, ...]:
    """The steps, each but the last made smaller by the rounding that it adds at most, so that all are safe.

    Every one then begins inside of the interval it was made for: with tops h_t in exact arithmetic and h'_t with
    rounding in step t alone, step t is multiplied by h_(t+1) / h'_(t+1). Small values lose that factor of their growth.
    """
    odd = odd_coefficients(steps)
    tops = widened_tops(odd, high, 0.0)
    result = []
    for t, (p, c) in enumerate(zip(steps[:-1], odd, strict=False)):
        factor = tops[t + 1] / widened_top(c, tops[t], u, first=t == 0)
        result.append(Polynomial(p.powers, tuple(factor * cj for cj in p.coefficients)))
    return (*result, *steps[-1:])


def odd_coefficients(steps: Sequence[Polynomial]) -> Steps:
    """For each step c with p(x) = x (c[0] + c[1] x^2 + ...); ValueError unless all are odd."""
    return tuple([odd_part(p) for p in steps])


def odd_part(p: Polynomial) -> tuple[float, ...]:
    """c with p(x) = x (c[0] + c[1] x^2 + c[2] x^4 + ...); ValueError unless p is odd."""
    if any(power % 2 == 0 for power in p.powers):
        raise ValueError(f"a schedule for msign needs odd polynomials, got powers {p.powers}")
    c = [0.0] * (max(p.powers) // 2 + 1)
    for power, value in zip(p.powers, p.coefficients, strict=True):
        c[power // 2] = float(value)
    return tuple(c)
