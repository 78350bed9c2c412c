"""Where the time of a step goes."""

from collections.abc import Sequence
from statistics import median

from spectrain.report._drawing.figure import ACCENT, MUTED, Figure, View, Views, axis, line
from spectrain.report._drawing.html import Section, amount, duration, percent
from spectrain.report._drawing.series import STEPS, chosen, column, front, has, thin, which
from spectrain.report._reading.measures import unit
from spectrain.report._reading.run import Run


def share(run: Run) -> float | None:
    """Optimizer time over step time: of the summary, else of the steps that have both."""
    stated = run.final("optimizer_share")
    if stated is not None:
        return stated
    both = _both(run)
    whole = sum(step for step, _ in both)
    return sum(part for _, part in both) / whole if whole > 0 else None


def _both(run: Run) -> list[tuple[float, float]]:
    rows = zip(column(run.steps, "step_seconds"), column(run.steps, "optimizer_seconds"), strict=True)
    return [(step, part) for step, part in rows if step is not None and part is not None]


def speed(runs: Sequence[Run]) -> Section | None:
    """The section on time: milliseconds a step with the optimizer's part, or tokens a second."""
    shown = [run for run in front(runs) if has(run.steps, "step_seconds")]
    if not shown:
        return None
    views: Views = {}
    for i, run in enumerate(shown):
        start = chosen(shown, i)
        views[*start, 0] = step_time(run)
        if has(run.steps, f"{unit([run])}_per_second"):
            views[*start, 1] = throughput(run)
    controls = [*which(shown), ("show", ["step time", f"{unit(shown)} per second"])]
    return Section("speed", "Speed", [Figure("step-time", views, controls)])


def step_time(run: Run) -> View:
    """Milliseconds of each step, the optimizer's part filled."""
    x, whole = STEPS.of(run.steps), column(run.steps, "step_seconds")
    kept = thin(whole)
    steps = [x[i] for i in kept]
    traces = [line(steps, [_milli(whole[i]) for i in kept], "whole step", MUTED, width=1.2)]
    part = column(run.steps, "optimizer_seconds")
    known = [v for v in whole if v is not None]
    title = f"The median step takes {duration(median(known))}"
    if has(run.steps, "optimizer_seconds"):
        y = [_milli(part[i]) for i in kept]
        traces.append(line(steps, y, "optimizer", ACCENT, width=1.2, fill="tozeroy", fillcolor=f"{ACCENT}/0.35"))
        title += f"; {percent(share(run))} of all step time is {run.optimizer}"
    top = 1e3 * sorted(known)[int(0.98 * (len(known) - 1))] * 1.3
    layout = {"xaxis": axis(STEPS.title), "yaxis": axis("time (milliseconds per step)", range=[0, top])}
    return View(title, traces, layout)


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def throughput(run: Run) -> View:
    """Tokens, or what the job counts in, a second at each step."""
    what = unit([run])
    x, y = STEPS.of(run.steps), column(run.steps, f"{what}_per_second")
    kept = thin(y)
    middle = median([v for v in y if v is not None])
    trace = line([x[i] for i in kept], [y[i] for i in kept], f"{what} per second", ACCENT, width=1.5)
    layout = {"xaxis": axis(STEPS.title), "yaxis": axis(f"training {what} per second", rangemode="tozero")}
    return View(f"The median speed is {amount(middle)} {what} a second", [trace], layout)
