"""The polynomials of a run: each step's error with its alternation points, and the composed map."""

from collections.abc import Sequence

import numpy as np

from spectrain.report._axes import axis
from spectrain.report._composed import composed
from spectrain.report._drawing.figure import ACCENT, MUTED, Figure, View, line, points
from spectrain.report._drawing.html import Section, details, paragraph, side_by_side, table, tag, text
from spectrain.report._drawing.series import front
from spectrain.report._polynomial import alternates, alternation, error_curve, interval_of, terms
from spectrain.report._reading.files import Row, number, objects
from spectrain.report._reading.run import Run
from spectrain.report._words import digits, plain


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
