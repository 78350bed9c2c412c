"""Working precision of ball arithmetic, borrowed and given back."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import no_type_check

import flint

_ONE_AT_A_TIME = threading.RLock()


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
