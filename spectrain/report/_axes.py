"""Axes with their titles and units, and round ticks for logarithmic ones."""

import math
from collections.abc import Iterator, Sequence

from spectrain.report._drawing.figure import Layout


def axis(title: str, **more: object) -> Layout:
    """An axis with its title, unit included."""
    return {"title": {"text": title}, **more}


def log_axis(title: str, values: Sequence[float | None], **more: object) -> Layout:
    """A logarithmic axis over ``values``, with round ticks that need no exponent where the range is short.

    >>> log_axis("loss (nats)", [1.3, 8.3])["tickvals"]
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
    """
    positive = [x for x in values if x is not None and 1e-300 < x < 1e300] or [1.0]
    low, high = min(positive), max(positive)
    ticks = list(_decades(low, high) if high > 300 * low else _round_numbers(low, high))
    return axis(title, type="log", tickvals=ticks, ticktext=[_tick(x) for x in ticks], **more)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _tick(x: float) -> str:
    """A tick's text.

    >>> _tick(0.02), _tick(1e-6)
    ('0.02', '10⁻⁶')
    """
    power = math.log10(x)
    far = not -4 < power < 5
    return "10" + f"{power:.0f}".translate(_RAISED) if far and power == round(power) else f"{x:g}"


def _decades(low: float, high: float) -> Iterator[float]:
    """Powers of ten, at most eight or so."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return (10.0**power for power in range(first, last + 1, math.ceil((last - first) / 8)))


def _round_numbers(low: float, high: float) -> Iterator[float]:
    """Ticks a little beyond both ends: 1, 2, 5 over decades, closer in one decade, even below a factor 3."""
    if high < 3 * low:
        step = _round_step((high - low) / 5 or low / 5)
        ticks = [k * step for k in range(max(1, math.floor(low / step) - 1), math.ceil(high / step) + 2)]
    else:
        digits = (1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [d * 10.0**power for power in powers for d in digits if low <= 1.35 * d * 10.0**power <= 1.8225 * high]
    for tick in ticks:
        yield float(f"{tick:.6g}")


def _round_step(width: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``width``."""
    power = 10.0 ** math.floor(math.log10(width))
    return max(k * power for k in (1, 2, 5) if k * power <= width * (1 + 1e-9))
