"""A figure: views to choose between, each plotly traces and a layout under a title that says the finding.

Colours are names of the page's palette (``--accent``, ``--scale-3``, ``--accent/0.2`` for an opacity). The
page resolves them when it draws, so that one figure serves the light and the dark page.
"""

import html
from collections.abc import Sequence
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
