"""The polynomials of a run: each step's error with its alternation points, and the composed map.

One polynomial of a schedule as its file tells it: terms, values, error, alternation.

What a whole schedule does to a singular value, after each step.
"""

import math
from collections.abc import Sequence

import numpy as np

from spectrain.report._drawing.figure import (
    ACCENT,
    MUTED,
    Figure,
    Trace,
    View,
    Views,
    axis,
    line,
    log_axis,
    points,
    series_color,
)
from spectrain.report._drawing.html import Section, details, digits, paragraph, plain, side_by_side, table, tag, text
from spectrain.report._drawing.series import front
from spectrain.report._reading.files import Row, number, objects
from spectrain.report._reading.run import Run

SAMPLES = 400


def terms(step: Row) -> list[tuple[int, float]]:
    """The (power, coefficient) pairs of a step, none when the file does not hold them."""
    powers, coefficients = step.get("powers"), step.get("coefficients")
    if not isinstance(powers, list) or not isinstance(coefficients, list) or len(powers) != len(coefficients):
        return []
    found = [(number(p), number(c)) for p, c in zip(powers, coefficients, strict=True)]
    return [(int(p), c) for p, c in found if p is not None and c is not None and p >= 0]


def evaluate(step: Row, x: np.ndarray) -> np.ndarray:
    """The value of a step's polynomial; infinities where it overflows.

    >>> evaluate({"powers": [1, 3], "coefficients": [1.5, -0.5]}, np.array([1.0, 2.0])).tolist()
    [1.0, -1.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sum([c * x**p for p, c in terms(step)], axis=0)


def interval_of(row: Row) -> tuple[float, float] | None:
    """The interval of a schedule or step, when it holds two numbers in order."""
    ends = row.get("interval")
    found = [number(x) for x in ends] if isinstance(ends, list) and len(ends) == 2 else []
    return (
        (found[0], found[1])
        if found and found[0] is not None and found[1] is not None and found[0] < found[1]
        else None
    )


def alternation(step: Row) -> tuple[np.ndarray, np.ndarray]:
    """The step's reference points inside numbers, and p(x) - 1 at each, computed from the coefficients."""
    listed = step.get("reference")
    x = np.array(
        sorted(v for v in map(number, listed) if v is not None) if isinstance(listed, list) else [],
        dtype=float,
    )
    return x, evaluate(step, x) - 1.0


def alternates(errors: np.ndarray, *, slack: float = 0.01) -> bool:
    """Whether errors alternate in sign and agree in size up to ``slack``: Chebyshev's mark of the best.

    >>> alternates(np.array([-0.5, 0.5, -0.5])), alternates(np.array([-0.5, 0.5, 0.5]))
    (True, False)
    """
    sizes = np.abs(errors)
    one_size = bool(len(errors)) and bool(sizes.max() <= (1 + slack) * sizes.min())
    return one_size and bool(np.all(errors[1:] * errors[:-1] < 0))


def error_curve(step: Row) -> tuple[list[float], list[float]]:
    """The step's sampled error as the file holds it, else computed from the coefficients."""
    curve = step.get("curve")
    stored = curve if isinstance(curve, dict) else {}
    x, y = ([number(v) for v in part] if isinstance(part := stored.get(key), list) else [] for key in ("x", "error"))
    known = [(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None]
    interval = interval_of(step)
    if not known and interval:
        grid = np.linspace(*interval, SAMPLES)
        known = list(zip(grid.tolist(), (evaluate(step, grid) - 1.0).tolist(), strict=True))
    return [a for a, _ in known], [b for _, b in known]


def polynomials(runs: Sequence[Run]) -> Section | None:
    """The section on polynomials; equal schedules of several runs are shown once."""
    unique = {plain(schedule): schedule for run in front(runs) for schedule in run.schedules}
    parts: list[Figure | str] = []
    for index, schedule in enumerate(unique.values()):
        parts += _schedule(schedule, f"schedule-{index + 1}")
    return Section("polynomials", "Polynomials", parts) if parts else None


def _schedule(schedule: Row, name: str) -> list[Figure | str]:
    steps = [step for step in objects(schedule.get("steps")) if terms(step)]
    said = _facts(schedule)
    parts: list[Figure | str] = [
        tag("h3", text(schedule.get("name", "schedule")), of="schedule"),
        paragraph(said, of="facts"),
    ]
    if steps:
        parts.append(composed(schedule, steps, f"{name}-map"))
        drawn = [step_error(step, f"{name}-step-{i + 1}", i + 1) for i, step in enumerate(steps)]
        parts += side_by_side([fig for fig in drawn if fig is not None])
        parts.append(details("Coefficients", _coefficients(steps)))
    return parts


def _facts(schedule: Row) -> str:
    """What the run says about a schedule."""
    interval, error = interval_of(schedule), number(schedule.get("error"))
    products, dtype = number(schedule.get("products")), schedule.get("dtype")
    said = [
        f"{products:.0f} matrix products" if products is not None else "",
        f"computed in {dtype}" if dtype else "",
        f"made for singular values in [{interval[0]:g}, {interval[1]:g}]" if interval else "",
        f"stated error {digits(error)}" if error is not None else "",
    ]
    return "; ".join(piece for piece in said if piece)


def step_error(step: Row, name: str, index: int) -> Figure | None:
    """p(x) - 1 over the step's interval, the alternation points marked."""
    x, y = error_curve(step)
    if not x:
        return None
    at, errors = alternation(step)
    level = number(step.get("error"))
    if level is None:
        level = max(map(abs, y))
    shift, across = (1.0, "singular value in, minus 1") if max(x) - min(x) < 1e-2 else (0.0, "singular value in")
    moved = [v - shift for v in x]
    ends = [min(moved), max(moved)]
    rims = [
        line(ends, [s * level] * 2, "±error", MUTED, width=1, dash="dot", showlegend=False) for s in (1, -1) if level
    ]
    traces = [
        *rims,
        line(moved, y, "p(x) - 1", ACCENT, showlegend=False),
        points((at - shift).tolist(), errors.tolist(), "alternation points", "--mark", showlegend=False),
    ]
    layout = {
        "xaxis": axis(across, exponentformat="power", nticks=5),
        "yaxis": axis("error p(x) \u2212 1", zeroline=True, exponentformat="power"),
    }
    view = View(_step_title(step, index, level, errors), traces, layout, digits=12)
    return Figure(name, {(): view}, height=230)


def _step_title(step: Row, index: int, level: float | None, errors: np.ndarray) -> str:
    degree = max(p for p, _ in terms(step))
    head = f"Step {index}, degree {degree}: error {digits(level)}"
    if not len(errors):
        return head
    needed = len(terms(step)) + 1
    if alternates(errors) and len(errors) >= needed:
        return f"{head}, alternating at {len(errors)} points"
    return f"{head}; its {len(errors)} reference points do not alternate at one level"


def _coefficients(steps: Sequence[Row]) -> str:
    """All coefficients in full, one column a power."""
    powers = sorted({p for step in steps for p, _ in terms(step)})
    rows = []
    for i, step in enumerate(steps):
        found = dict(terms(step))
        rows.append([str(i + 1), *(repr(found[p]) if p in found else "" for p in powers)])
    return table(["step", *(f"x^{p}" for p in powers)], rows, of="exact")


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
