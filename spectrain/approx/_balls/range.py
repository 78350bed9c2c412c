"""The range of a polynomial on an interval, proven: branch and bound with Taylor expansions in balls.

The working precision of ball arithmetic is global in flint; here it is borrowed and given back.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import flint
from flint import arb, arb_poly

_ONE_AT_A_TIME = threading.RLock()
Model = Callable[[arb, arb], arb_poly | list[arb]]
"""(centre m, radius r) -> coefficients of a Taylor model of g(m + t), true for every |t| <= r, the derivatives
included; or, where there is none, balls of which one holds g at each such point."""

Point = Callable[[arb], tuple[arb, arb]]
"""x -> (g(x), g'(x))."""

_FINE, _FINEST = arb(2) ** -80, arb(2) ** -400
"""The smallest pieces, relative: where no bound is known, and where one is."""


@contextmanager
def precise(bits: int) -> Iterator[None]:
    """Compute with ``bits`` bits inside the block; the precision before it comes back after it.

    The precision of python-flint belongs to the process, so one thread at a time is let in.
    """
    with _ONE_AT_A_TIME:
        before = flint.ctx.prec
        flint.ctx.prec = int(bits)
        try:
            yield
        finally:
            flint.ctx.prec = before


@no_type_check  # called for every number
def ball(x: object) -> "flint.arb":
    """The exact ball of an int, float, Fraction, fmpq or ball."""
    kind = type(x)
    if kind is flint.arb:
        return x
    if kind is float or kind is int:
        return flint.arb(x)
    if hasattr(x, "numerator") and hasattr(x, "denominator") and not isinstance(x, float):
        return flint.arb(flint.fmpq(int(x.numerator), int(x.denominator)))
    return flint.arb(float(x))


def float_up(x: "flint.arb") -> float:
    """A double that is at least every value of the ball."""
    top = x.upper()
    value = float(top)
    return value if ball(value) >= top else math.nextafter(value, math.inf)


def float_down(x: "flint.arb") -> float:
    """A double that is at most every value of the ball."""
    return -float_up(-x)


class UnprovableError(Exception):
    """The budget of subdivisions was spent, or the function cannot be followed by balls."""


class UndefinedError(UnprovableError):
    """A value is not finite at a point."""

    def __init__(self, at: arb) -> None:
        super().__init__(f"the function is not finite at x = {float(at):.17g}")
        self.at = float(at)


class BudgetError(UnprovableError):
    """The budget of subdivisions was spent."""


@dataclass
class _Search:
    """What is known so far: values that are taken (inner) and bounds that hold (outer)."""

    model: Model
    point: Point
    symmetric: bool
    slack: arb
    low: arb
    high: arb
    low_bound: arb
    high_bound: arb
    found: list[arb]
    width: arb

    def take(self, at: arb, value: arb, widen: arb | None = None) -> None:
        """Record that g takes ``value`` at this point, and that on some piece it exceeds it by ``widen`` at most."""
        if not value.is_finite():
            raise UndefinedError(at)
        spread = widen if widen is not None else arb(0)
        self.high_bound = _larger(self.high_bound, (value + spread).upper())
        self.low_bound = -_larger(-self.low_bound, (-(value - spread)).upper())
        if value.lower() > self.high or (-value).lower() > -self.low:
            self.found.append(at)
        self.high = _larger(self.high, value.lower())
        self.low = -_larger(-self.low, (-value).lower())
        if self.symmetric:
            self.high = _larger(self.high, -self.low)
            self.low = -self.high

    def tolerance(self) -> arb:
        """What a bound may be off by."""
        return self.slack + (abs(self.high) + abs(self.low)) * arb(2) ** -52

    def harmless(self, values: arb) -> bool:
        """Whether these values cannot move the bounds by more than the tolerance."""
        slack = self.tolerance()
        return bool(values.upper() <= self.high + slack and values.lower() >= self.low - slack)

    def hold(self, values: arb) -> None:
        """Let the bounds cover values that are within the slack."""
        self.high_bound = _larger(self.high_bound, values.upper())
        self.low_bound = -_larger(-self.low_bound, (-values).upper())


def _larger(a: arb, b: arb) -> arb:
    return a if a >= b else b


def proven_range(
    model: Model,
    point: Point,
    pieces: list[tuple[arb, arb]],
    *,
    symmetric: bool = False,
    slack: arb | None = None,
    budget: int = 20_000,
    found: list[arb] | None = None,
) -> tuple[arb, arb, arb, arb]:
    """(low_bound, low, high, high_bound) with low_bound <= min g <= low and high <= max g <= high_bound.

    A piece is settled when a direct enclosure stays inside the values already taken, when g' keeps its sign there
    (the ends decide), or when g'' does (an end and the one stationary point decide); otherwise it is halved. With
    ``symmetric`` only the larger of max g and -min g matters. ``found`` gets the points where g was larger (or lower)
    than before. Raises BudgetError when the budget is spent, UnprovableError where a value or every bound of it is not
    finite.
    """
    start = point(pieces[0][0])[0]
    if not start.is_finite():
        raise UndefinedError(pieces[0][0])
    zero = arb(0)
    search = _Search(model, point, symmetric, slack or zero, start.upper(), start.lower(), start.lower(), start.upper(),
                     found if found is not None else [], pieces[-1][1] - pieces[0][0])  # fmt: skip
    search.take(pieces[0][0], start)
    for a, b in pieces:
        search.take(a, point(a)[0])
        search.take(b, point(b)[0])
    queue = [_Piece(a, b, point(a)[1], point(b)[1]) for a, b in reversed(pieces)]
    while queue:
        budget -= 1
        if budget < 0:
            raise BudgetError("the budget of subdivisions is spent")
        piece = queue.pop()
        if piece.low < piece.high and (cut := _split(search, piece)) is not None:
            middle, slope = cut
            queue += [piece._replace(low=middle, left=slope), piece._replace(high=middle, right=slope)]
    return search.low_bound, search.low, search.high, search.high_bound


class _Piece(NamedTuple):
    """Two ends and the slopes there."""

    low: arb
    high: arb
    left: arb
    right: arb


def _split(search: _Search, piece: _Piece) -> tuple[arb, arb] | None:
    """Where a piece has to be halved, and the slope there; None where it is settled."""
    centre = ((piece.low + piece.high) / 2).mid()
    radius = (piece.high - centre).upper()
    model = search.model(centre, radius)
    values = model if isinstance(model, list) else [model(arb(0, radius))]
    if _within(search, values, centre, radius):
        return None
    if isinstance(model, list):
        value, slope = search.point(centre)
    elif _monotone(search, piece, centre, model):
        return None
    else:
        # The first coefficients of a Taylor model are the value and the slope at its centre.
        value, slope = (model[0], model[1]) if model.length() > 2 else search.point(centre)
    search.take(centre, value)
    return centre, slope


def _within(search: _Search, values: list[arb], centre: arb, radius: arb) -> bool:
    """Whether these values are all that the bounds need from a piece."""
    if radius <= search.width * _FINE and not all(v.is_finite() for v in values):
        raise UnprovableError(f"no bound is found near {float(centre):.17g}")
    # At the finest is a jump: no smaller piece will tell more, so the bounds take in all that is left.
    if not (radius <= search.width * _FINEST or all(map(search.harmless, values))):
        return False
    for v in values:
        search.hold(v)
    return True


def _monotone(search: _Search, piece: _Piece, centre: arb, expansion: arb_poly) -> bool:
    """Whether g or g' is monotone on the piece, so that its ends or one more point decide; records what they add."""
    radius = (piece.high - centre).upper()
    t = arb(0, radius)
    slope = expansion.derivative()
    if not slope(t).contains(arb(0)):
        return True
    bend = slope.derivative()
    if bend.length() == 0 or bend(t).contains(arb(0)):
        return False
    # g' is monotone: without a change of sign the ends decide, else a tangent at its zero bounds the bulge.
    left, right = piece.left, piece.right
    if (left > 0 and right > 0) or (left < 0 and right < 0):
        return True
    at, value, rise = _stationary(search, slope, bend, piece, centre)
    spread = abs(rise) * 2 * radius
    if spread > search.tolerance():
        return False
    search.take(at, value, spread)
    return True


def _stationary(search: _Search, slope: arb_poly, bend: arb_poly, piece: _Piece, centre: arb) -> tuple[arb, arb, arb]:
    """The zero of a monotone g' in a piece by Newton's method kept inside: where, g and g' there."""
    low, high, at = piece.low, piece.high, _zero_of(slope, bend, piece, centre)
    rising = bool(bend(arb(0)) > 0)
    value, rise = search.point(at)
    for _ in range(50):
        if rise.contains(arb(0)) or abs(rise) * (piece.high - piece.low) < search.tolerance() / 4:
            break
        low, high = (low, at) if bool(rise > 0) == rising else (at, high)
        moved = (at - (rise / bend(at - centre)).mid()).mid()
        moved = moved if low < moved < high else ((low + high) / 2).mid()
        if moved == at:
            break
        at = moved
        value, rise = search.point(at)
    return at, value, rise


def _zero_of(slope: arb_poly, bend: arb_poly, piece: _Piece, centre: arb) -> arb:
    """About where g' is 0, from its Taylor model: that costs no value of g."""
    at = centre
    for _ in range(8):
        moved = (at - (slope(at - centre) / bend(at - centre)).mid()).mid()
        if not (piece.low < moved < piece.high):
            return centre
        if moved == at or abs(moved - at) < abs(piece.high - piece.low) * _FINE:
            return moved
        at = moved
    return at


def polynomial_range(poly: arb_poly, a: arb, b: arb) -> tuple[arb, arb, arb, arb]:
    """``proven_range`` of a polynomial with exact coefficients on [a, b]."""
    slope = poly.derivative()

    def model(m: arb, r: arb) -> arb_poly:
        return poly(arb_poly([m, 1]))

    return proven_range(model, lambda x: (poly(x), slope(x)), [(a, b)])
