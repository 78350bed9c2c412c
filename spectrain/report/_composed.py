"""What a whole schedule does to a singular value, after each step."""

import math
from collections.abc import Sequence

import numpy as np

from spectrain.report._axes import axis, log_axis
from spectrain.report._drawing.figure import ACCENT, Figure, Trace, View, Views, line, series_color
from spectrain.report._polynomial import evaluate, interval_of
from spectrain.report._reading.files import Row
from spectrain.report._words import digits

_TALLEST = 1e6
_DRAWN, _DENSE = 1000, 20_001


def composed(schedule: Row, steps: Sequence[Row], name: str) -> Figure:
    """What happens to a singular value: after each step, as a value or as the distance from 1."""
    interval = interval_of(schedule) or interval_of(steps[0]) or (1e-3, 1.0)
    low, high = max(interval[0], 1e-12), interval[1]
    x = np.geomspace(low / 10, high, _DRAWN)
    values, after = x, []
    for step in steps:
        values = evaluate(step, values)
        after.append(values)
    inside = np.geomspace(low, high, _DENSE)
    for step in steps:
        inside = evaluate(step, inside)
    worst = float(np.abs(inside - 1).max()) if np.isfinite(inside).all() else math.inf
    title = _composed_title(len(steps), low, high, worst)
    floor = max(worst / 100, 1e-16)
    views: Views = {
        (0,): View(title, _value_traces(x, after), _map_layout("singular value out", low, high, {})),
        (1,): View(
            title,
            _distance_traces(x, after, floor),
            _map_layout("distance from 1", low, high, {"log": floor}),
        ),
    }
    caption = "Shaded: the interval the schedule is made for. Singular values below it are lifted, not finished."
    return Figure(name, views, [("show", ["value", "distance from 1"])], caption, height=400)


def _composed_title(count: int, low: float, high: float, worst: float) -> str:
    if not math.isfinite(worst):
        return f"{count} steps overflow somewhere on [{low:g}, {high:g}]"
    return f"{count} steps bring every singular value in [{low:g}, {high:g}] to within {digits(worst, 3)} of 1"


def _value_traces(x: np.ndarray, after: Sequence[np.ndarray]) -> list[Trace]:
    return [_after(x, np.clip(y, -_TALLEST, _TALLEST), i, len(after)) for i, y in enumerate(after)]


def _distance_traces(x: np.ndarray, after: Sequence[np.ndarray], floor: float) -> list[Trace]:
    clipped = [np.clip(np.abs(y - 1), floor, _TALLEST) for y in after]
    return [_after(x, y, i, len(after)) for i, y in enumerate(clipped)]


def _after(x: np.ndarray, y: np.ndarray, index: int, count: int) -> Trace:
    last = index == count - 1
    color = "--ink" if last else series_color(index, max(count - 1, 2))
    finite = [float(v) if math.isfinite(v) else None for v in y]
    return line(x.tolist(), finite, f"after step {index + 1}", color, width=2.5 if last else 1.3)


def _map_layout(title: str, low: float, high: float, kind: dict[str, float]) -> dict:
    vertical = log_axis(title, [kind["log"], 1.0]) if kind else axis(title, rangemode="tozero", zeroline=True)
    shape = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    shade = {**shape, "fillcolor": f"{ACCENT}/0.07", "line": {"width": 0}, "layer": "below"}
    across = log_axis("singular value in, over the largest", [low / 10, high])
    return {"xaxis": across, "yaxis": vertical, "shapes": [shade]}
