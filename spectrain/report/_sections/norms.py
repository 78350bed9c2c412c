"""The largest singular value of each matrix over training, in the unit of --bound, and the bound."""

from collections.abc import Sequence

from spectrain.report._drawing.figure import (
    Figure,
    Trace,
    View,
    Views,
    axis,
    label,
    line,
    log_axis,
    series_color,
)
from spectrain.report._drawing.html import digits
from spectrain.report._drawing.series import STEPS, chosen, column, curve, has, level, which
from spectrain.report._reading.files import number
from spectrain.report._reading.run import History, Run, history_of

_KEY = "weight_norm_ratio"


def norms(runs: Sequence[Run]) -> Figure | None:
    """One line a parameter, the bound dashed; of several runs each with its own."""
    shown = [run for run in runs if has(run.spectra, _KEY)]
    if not shown:
        return None
    top = max(y for run in shown for y in column(run.spectra, _KEY) if y is not None)
    views: Views = {chosen(shown, r): _view(run, top) for r, run in enumerate(shown)}
    caption = "The unit, sqrt(out / in), is that of --bound. Runs share one vertical axis."
    return Figure("largest-singular-values", views, which(shown), caption=caption)


def _view(run: Run, top: float) -> View:
    history = history_of(run.spectra)
    bound = number(run.config.get("bound"))
    traces = [_trace(history, name, i) for i, name in enumerate(history)]
    if bound is not None:
        traces.append(level(run.spectra, bound, "the bound"))
    values = [y for trace in traces for y in trace["y"] if y]
    layout = {"xaxis": axis(STEPS.title), "yaxis": log_axis("largest singular value / sqrt(out / in)", [*values, top])}
    return View(_title(history, bound), traces, layout)


def _trace(history: History, name: str, index: int) -> Trace:
    x, y = curve(history[name], STEPS, _KEY)
    color = series_color(index, len(history))
    positive = [value if value and value > 0 else None for value in y]  # what begins at zero has no logarithm
    return line(x, positive, label(name.removesuffix(".weight")), color, width=1.8, mode="lines+markers",
                marker={"size": 5}, showlegend=len(history) <= 14)  # fmt: skip


def _title(history: History, bound: float | None) -> str:
    last = {name: known[-1] for name, rows in history.items() if (known := [y for y in column(rows, _KEY) if y])}
    if not last:
        return "No largest singular value was written"
    name = max(last, key=lambda each: last[each])
    held = f", of a bound of {digits(bound, 3)}" if bound is not None else ""
    return f"Largest singular value at the end: {digits(last[name], 4)} sqrt(out / in){held}, in {name}"
