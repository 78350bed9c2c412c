"""A figure: views to choose between, each plotly traces and a layout under a title that says the finding.

Colours are names of the page's palette (``--accent``, ``--scale-3``, ``--accent/0.2`` for an opacity). The
page resolves them when it draws, so that one figure serves the light and the dark page.

Axes with their titles and units, and round ticks for logarithmic ones.
"""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]
Layout = dict[str, Any]
ACCENT = "--accent"
MUTED = "--muted"
SCALE_SIZE = 7


@dataclass(frozen=True, slots=True)
class View:
    """One state of a figure. ``narrow`` is the part of the layout that is different on a phone.

    ``digits`` is how many significant digits of its numbers the page keeps.
    """

    title: str
    traces: list[Trace]
    layout: Layout
    narrow: Layout = field(default_factory=dict)
    digits: int = 6


Views = dict[tuple[int, ...], View]


@dataclass(frozen=True, slots=True)
class Figure:
    """Views by choice: ``controls`` are (label, options), a view's key is one option index for each."""

    name: str
    views: Views
    controls: list[tuple[str, list[str]]] = field(default_factory=list)
    caption: str = ""
    height: int = 340

    @property
    def first(self) -> View:
        """The view that the page opens with."""
        return self.views[min(self.views)]


def figure(name: str, title: str, traces: list[Trace], layout: Layout, *, caption: str = "") -> Figure:
    """A figure with a single view."""
    return Figure(name, {(): View(title, traces, layout)}, caption=caption)


def label(text: object) -> str:
    """Text from a file, made safe for plotly, whose labels are a small HTML of their own.

    >>> label("<b>bold</b>")
    '&lt;b&gt;bold&lt;/b&gt;'
    """
    return html.escape(str(text), quote=False)


def line(x: Sequence[float | None], y: Sequence[float | None], name: str, color: str, **more: object) -> Trace:
    """A line with gaps where a value is missing; ``width`` and ``dash`` are its stroke's, the rest the trace's."""
    stroke = {"color": color, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": stroke,
        **more,
    }


def points(x: Sequence[float | None], y: Sequence[float | None], name: str, color: str, **more: object) -> Trace:
    """Marked points without a line."""
    marker = {"color": color, "size": more.pop("size", 7), "symbol": more.pop("symbol", "circle")}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "name": name,
        "marker": marker,
        **more,
    }


def series_color(index: int, count: int) -> str:
    """Colour ``index`` of ``count``, spread over the one colour scale of the page.

    >>> [series_color(i, 2) for i in range(2)], series_color(0, 1)
    (['--scale-1', '--scale-5'], '--accent')
    """
    if count == 1:
        return ACCENT
    first, last = (1, SCALE_SIZE - 2) if count <= 3 else (0, SCALE_SIZE - 1)
    return f"--scale-{first + round((last - first) * (index % count) / (count - 1))}"


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
