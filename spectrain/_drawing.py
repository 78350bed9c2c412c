"""The one place that draws: a ``Picture`` of lines becomes an SVG file or an interactive HTML page.

A picture is plain data: who makes one knows nothing of plotly, which is imported only when a page is written. The page
carries plotly's script and opens without a network; the SVG is written by hand and needs no browser.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from spectrain._extras import wanted_by
from spectrain._files.write import write_text

Numbers: TypeAlias = float | int | Sequence[Any] | NDArray[Any]
Real: TypeAlias = float | int

PALETTE = ("#1f5fa8", "#c8511b", "#3a7d44", "#7b4ea3", "#a8323e", "#0f7f86", "#8a6d1d", "#5b5b5b")
WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, BOTTOM = 78, 24, 58
VIEW = (math.radians(-55), math.radians(24))  # azimuth and elevation from which an SVG looks at space


@dataclass(frozen=True)
class Line:
    """Points to be joined (``line``, ``dash``), filled (``area``) or marked (``points``, ``marks``)."""

    x: Numbers
    y: Numbers
    z: Numbers | None = None
    _: KW_ONLY
    name: str = ""
    style: Literal["line", "dash", "area", "points", "marks"] = "line"
    color: int | None = None


@dataclass(frozen=True)
class Picture:
    """Lines with a title and axes; ``equal`` keeps circles round, ``log`` names the logarithmic axes.

    ``frames`` are further sets of lines that the page plays one after the other on top of ``lines``; an SVG
    shows the frame in the middle.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    equal: bool = False
    log: Literal["", "x", "y", "xy"] = ""
    frames: tuple[tuple[Line, ...], ...] = ()

    @property
    def spatial(self) -> bool:
        """Whether any line has a third coordinate."""
        return any(line.z is not None for line in self.lines)


def save(picture: Picture, path: Path) -> None:
    """Write the picture to ``path``: .svg or .html. Raises ValueError for any other ending."""
    writers = {".svg": svg, ".html": html}
    if path.suffix not in writers:
        raise ValueError(f"drawing: the file must end in .svg or .html, got {path.name!r}.")
    write_text(path, writers[path.suffix](picture))


def html(picture: Picture) -> str:
    """The picture as one HTML page with plotly inside: zoom, hover, and a play button if there are frames."""
    with wanted_by("a drawing in HTML"):
        import plotly.graph_objects as go

    colored = _colored(picture)
    first = picture.frames[0] if picture.frames else ()
    figure = go.Figure([_trace(line) for line in (*colored, *first)])
    figure.update_layout(**_layout(picture))
    if picture.frames:
        moving = list(range(len(colored), len(colored) + len(first)))
        figure.frames = [
            go.Frame(data=[_trace(line) for line in frame], traces=moving, name=str(i))
            for i, frame in enumerate(picture.frames)
        ]
        figure.update_layout(updatemenus=[_play_button()])
    config = {"displaylogo": False, "responsive": True}
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, default_height="99vh", config=config)
    head = f"<head><title>{escape(picture.title)}</title><style>body {{ margin: 0 }}</style>"
    return page.replace("<head>", head, 1)


def svg(picture: Picture) -> str:
    """The picture as SVG text, axes, ticks and legend included, some kilobytes long."""
    frame = picture.frames[len(picture.frames) // 2] if picture.frames else ()
    lines = [_flat(line, picture.log) for line in (*_colored(picture), *frame)]
    legend, top = _legend([line for line in lines if line.name])
    box = _box(lines, picture.equal or picture.spatial, top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 24, picture.title, size=16),
        *([] if picture.spatial else _axes(picture, box, top)),
        f'<clipPath id="inside"><path d="M{LEFT} {top}H{WIDTH - RIGHT}V{HEIGHT - BOTTOM}H{LEFT}Z"/></clipPath>',
        '<g clip-path="url(#inside)">',
        *(_shape(line, box, top) for line in lines),
        "</g>",
        *legend,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _colored(picture: Picture) -> list[Line]:
    """The lines, each with a colour of its own unless it names one."""
    return [replace(line, color=i if line.color is None else line.color) for i, line in enumerate(picture.lines)]


def _color(line: Line) -> str:
    return PALETTE[(line.color or 0) % len(PALETTE)]


def _trace(line: Line) -> Any:
    """A plotly trace of one line."""
    import plotly.graph_objects as go

    marked = line.style in ("points", "marks")
    look: dict[str, Any] = {"name": line.name, "showlegend": bool(line.name), "mode": "markers" if marked else "lines"}
    if marked:
        look["marker"] = {"color": _color(line), "size": 5 if line.style == "points" else 11}
    else:
        look["line"] = {"color": _color(line), "width": 2.5, "dash": "dash" if line.style == "dash" else "solid"}
    if line.z is not None:
        return go.Scatter3d(x=np.asarray(line.x), y=np.asarray(line.y), z=np.asarray(line.z), **look)
    if line.style == "area":
        look |= {"fill": "toself", "opacity": 0.6}
    return go.Scatter(x=np.asarray(line.x), y=np.asarray(line.y), **look)


def _layout(picture: Picture) -> dict[str, Any]:
    """Titles, axes and a legend below the plot, where it hides nothing."""
    layout: dict[str, Any] = {
        "title": {"text": picture.title, "x": 0.5},
        "template": "plotly_white",
        "legend": {"orientation": "h", "y": -0.15, "x": 0.5, "xanchor": "center"},
        "margin": {"l": 80, "r": 40, "t": 80, "b": 80},
    }
    if picture.spatial:
        return layout | {"scene": {"aspectmode": "data", "camera": {"eye": {"x": 1.1, "y": -1.2, "z": 0.7}}}}
    sides = {"x": picture.x, "y": picture.y}
    axes: dict[str, Any] = {f"{s}axis": {"title": {"text": t}, "exponentformat": "power"} for s, t in sides.items()}
    for side in picture.log:
        axes[f"{side}axis"]["type"] = "log"
    if picture.equal:
        axes["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
        if picture.frames:  # a moving picture must not rescale
            points = [_flat(line, "") for line in picture.lines]
            for side in sides:
                values = np.concatenate([np.asarray(getattr(line, side)) for line in points])
                pad = 0.06 * float(np.ptp(values))
                axes[f"{side}axis"]["range"] = [float(values.min()) - pad, float(values.max()) + pad]
    return layout | axes


def _play_button() -> dict[str, Any]:
    settings = {"frame": {"duration": 40, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    stop = {"frame": {"duration": 0}, "mode": "immediate"}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, settings]},
        {"label": "Pause", "method": "animate", "args": [[None], stop]},
    ]
    return {"type": "buttons", "direction": "left", "x": 0, "y": 1.1, "xanchor": "left", "buttons": buttons}


def _flat(line: Line, log: str) -> Line:
    """The line in plane drawing coordinates: space projected, logarithms taken."""
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    if line.z is not None:
        (az, el), z = VIEW, np.asarray(line.z, dtype=float)
        depth = -math.sin(az) * y + math.cos(az) * x
        return replace(line, x=math.cos(az) * y + math.sin(az) * x, y=math.cos(el) * z - math.sin(el) * depth, z=None)
    return replace(line, x=np.log10(x) if "x" in log else x, y=np.log10(y) if "y" in log else y)


Box = tuple[float, float, float, float]  # x0, x1, y0, y1 in data coordinates


def _box(lines: Sequence[Line], equal: bool, top: Real) -> Box:
    """The data rectangle that fills the drawing area, with a margin; the same scale on both sides if ``equal``."""
    xs, ys = (np.concatenate([np.asarray(getattr(line, side)) for line in lines]) for side in "xy")
    x0, x1, y0, y1 = float(np.min(xs)), float(np.max(xs)), float(np.min(ys)), float(np.max(ys))
    w, h = 1.08 * (x1 - x0) or 1.0, 1.08 * (y1 - y0) or 1.0
    if equal:
        ratio = (WIDTH - LEFT - RIGHT) / (HEIGHT - BOTTOM - top)
        w, h = max(w, h * ratio), max(h, w / ratio)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2


def _pixels(x: Any, y: Any, box: Box, top: Real) -> tuple[Any, Any]:
    x0, x1, y0, y1 = box
    across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - top)


def _shape(line: Line, box: Box, top: Real) -> str:
    """One line as SVG."""
    px, py = _pixels(line.x, line.y, box, top)
    color = _color(line)
    if line.style in ("points", "marks"):
        r = 2 if line.style == "points" else 6
        dots = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{r}"/>' for a, b in zip(px, py, strict=True))
        return f'<g fill="{color}">{"".join(dots)}</g>'
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
    if line.style == "area":
        return f'<polygon points="{points}" fill="{color}" fill-opacity="0.35" stroke="{color}"/>'
    dash = ' stroke-dasharray="7 5"' if line.style == "dash" else ""
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'


def _text(x: Real, y: Real, text: str, *, size: int = 12, anchor: str = "middle", extra: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="#222"{extra}>{escape(text)}</text>'


def _legend(lines: Sequence[Line]) -> tuple[list[str], int]:
    """The legend's rows under the title, and the height at which the drawing area starts."""
    parts, x, y = [], LEFT, 48
    for line in lines:
        width = 34 + 7 * len(line.name)
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, y = LEFT, y + 20
        if line.style in ("points", "marks"):
            parts.append(f'<circle cx="{x + 10}" cy="{y - 4}" r="4" fill="{_color(line)}"/>')
        else:
            dash = ' stroke-dasharray="7 5"' if line.style == "dash" else ""
            parts.append(f'<path d="M{x} {y - 4}h20" stroke="{_color(line)}" stroke-width="3"{dash}/>')
        parts.append(_text(x + 26, y, line.name, anchor="start"))
        x += width
    return parts, y + 16 if lines else 40


def _ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    """About six round numbers between low and high, with their labels."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= max(m for m in (1, 2, 5) if m * step <= (high - low) / 4) if (high - low) / 4 >= step else 1
    if log:
        step = max(1.0, float(math.ceil(step)))
    places = max(0, -math.floor(math.log10(step)))
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(v, f"1e{v:.0f}" if log else f"{v:.{places}f}") for v in values]


def _axes(picture: Picture, box: Box, top: Real) -> list[str]:
    """Frame, grid, tick labels and axis titles."""
    x0, x1, y0, y1 = box
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in _ticks(x0, x1, "x" in picture.log):
        at = float(_pixels(value, y0, box, top)[0])
        parts.append(f'<path d="M{at:.1f} {top}V{bottom}" stroke="#ddd"/>')
        parts.append(_text(at, bottom + 17, label))
    for value, label in _ticks(y0, y1, "y" in picture.log):
        at = float(_pixels(x0, value, box, top)[1])
        parts.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 7, at + 4, label, anchor="end"))
    middle = (top + bottom) / 2
    parts.append(f'<path d="M{LEFT} {top}V{bottom}H{right}" fill="none" stroke="#444"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 16, picture.x, size=13))
    parts.append(_text(16, middle, picture.y, size=13, extra=f' transform="rotate(-90 16 {middle:.1f})"'))
    return parts
