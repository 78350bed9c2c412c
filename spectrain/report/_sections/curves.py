"""Loss and bits per byte against tokens and time, learning rate, gradient norm."""

from collections.abc import Sequence

from spectrain.report._drawing.figure import MUTED, Figure, Trace, View, Views, axis, figure, label, line, log_axis
from spectrain.report._drawing.html import Section, digits, side_by_side
from spectrain.report._drawing.series import (
    STEPS,
    Against,
    Series,
    against_data,
    against_time,
    column,
    curve,
    has,
    outcome,
    series,
)
from spectrain.report._reading.measures import MEASURES, Measure, unit
from spectrain.report._reading.run import Run


def _measures(runs: Sequence[Run]) -> list[Measure]:
    """What these runs have curves of; the loss comes last."""
    loss = Measure("loss", "loss", "loss (nats per token)" if unit(runs) == "tokens" else "loss")
    known = [*MEASURES, loss]
    return [m for m in known if any(has(run.steps, m.key) or has(run.evals, m.key) for run in runs)]


def curves(runs: Sequence[Run]) -> Section | None:
    """The section on how training went."""
    main, *small = progress(runs), learning_rate(runs), gradient_norm(runs)
    parts = [*([main] if main else []), *side_by_side([fig for fig in small if fig is not None])]
    return Section("training", "Training", parts) if parts else None


def progress(runs: Sequence[Run]) -> Figure | None:
    """Bits per byte or loss, against tokens or time."""
    measures = _measures(runs)
    if not measures:
        return None
    bases = [against_data(runs), against_time(runs)]
    views: Views = {
        (i, j): _progress_view(runs, m, base) for i, m in enumerate(measures) for j, base in enumerate(bases)
    }
    controls = [("show", [m.words for m in measures]), ("against", [unit(runs), "time"])]
    several = "Validation of each run; the best run of each optimizer is drawn strongly. " if len(runs) > 1 else ""
    caption = several + "The vertical axis is logarithmic."
    return Figure("progress", views, controls, caption=caption, height=420)


def _progress_view(runs: Sequence[Run], measure: Measure, base: Against) -> View:
    key = measure.key
    drawn = series(runs)
    traces = _alone(drawn[0], key, base) if len(drawn) == 1 else _together(drawn, key, base)
    if key == "bits_per_byte":
        traces += _xz(runs, base)
    everything = [y for trace in traces for y in trace["y"]]
    layout = {"xaxis": axis(base.title, rangemode="tozero"), "yaxis": log_axis(measure.title, everything)}
    return View(_progress_title(runs, measure), traces, layout)


def _alone(one: Series, key: str, base: Against) -> list[Trace]:
    """Each training step faintly, their running mean, and the validation in front."""
    x, y = curve(one.run.steps, base, key)
    traces = [line(x, y, "training, each step", f"{MUTED}/0.35", width=1, hoverinfo="skip")] if any(y) else []
    if len(y) > 40:
        x, y = curve(one.run.steps, base, key, smooth=True)
        traces.append(line(x, y, "training, mean of the last 5 %", MUTED, width=1.5))
    if has(one.run.evals, key):
        vx, vy = curve(one.run.evals, base, key)
        marker = {"color": one.color, "size": 6}
        traces.append(line(vx, vy, "validation", one.color, width=2.5, mode="lines+markers", marker=marker))
    return traces + _averaged(one, key, base, "--ink")


_AVERAGED = (("average", "averaged weights", "solid"), ("decayed", "estimate after a decay", "dot"))


def _averaged(one: Series, key: str, base: Against, color: str, *, of: str = "", **more: object) -> list[Trace]:
    """The validations of averaged weights, where there are any; ``of``: before their names, whose they are."""
    found = [(curve(one.run.evals, base, f"{name}_{key}"), words, dash) for name, words, dash in _AVERAGED
             if has(one.run.evals, f"{name}_{key}")]  # fmt: skip
    look = {"width": 1.5, "mode": "lines+markers", "marker": {"size": 4}, **more}
    return [line(x, y, of + words, color, dash=dash, **look) for (x, y), words, dash in found]


def _together(drawn: Sequence[Series], key: str, base: Against) -> list[Trace]:
    """One curve a run: the validation, or the running mean of the steps where there is none; averages beside it."""
    traces = []
    for one in sorted(drawn, key=lambda s: (s.front, outcome(s.run))):
        x, y = curve(one.run.evals, base, key)
        if not any(y):
            x, y = curve(one.run.steps, base, key, smooth=True)
        color, width = (one.color, 2.5) if one.front else (f"{one.color}/0.35", 1.2)
        name = label(one.run.name)
        traces.append(line(x, y, name, color, width=width, showlegend=one.front))
        traces += _averaged(one, key, base, color, of=f"{name}, ", showlegend=one.front)
    return traces


def _xz(runs: Sequence[Run], base: Against) -> list[Trace]:
    """The level of xz as a line over the whole width."""
    level = runs[0].final("xz_bits_per_byte")
    ends = [x for run in runs for x in base.of(run.steps + run.evals) if x is not None]
    if level is None or not ends:
        return []
    return [line([0.0, max(ends)], [level, level], "xz -6 on the validation text", "--ink", width=1.2, dash="dot")]


def _progress_title(runs: Sequence[Run], measure: Measure) -> str:
    key, name = measure.key, measure.words
    if len(runs) > 1:
        found = [(y, run.name) for run in runs if (y := run.final(key)) is not None]
        best = (min if measure.falls else max)(found, default=(0.0, ""))
        return (
            f"The {'lowest' if measure.falls else 'highest'} final {name} is {digits(best[0])}, by {best[1]}"
            if found
            else f"No {name} was written"
        )
    rows = runs[0].evals if has(runs[0].evals, key) else runs[0].steps
    values = [y for y in column(rows, key) if y is not None]
    what = "Validation" if rows is runs[0].evals else "Training"
    if not values:
        return f"No {name} was written"
    ends = f"went from {digits(values[0])} to {digits(values[-1])}"
    return (
        f"{what} {ends} {name}"
        if key == "bits_per_byte"
        else f"{what}: {name} {ends}"
        if key != "loss"
        else f"{what} loss {ends}"
    )


def learning_rate(runs: Sequence[Run]) -> Figure | None:
    """The learning rate of each step."""
    rows = runs[0].steps
    if not any(has(run.steps, "lr") for run in runs):
        return None
    known = [(y, row["step"]) for row, y in zip(rows, column(rows, "lr"), strict=True) if y is not None]
    title = "Learning rate of each run"
    if len(runs) == 1:
        top = max(known, key=lambda point: point[0])
        end = digits(known[-1][0], 2)
        title = f"The learning rate peaked at {digits(top[0])} in step {digits(top[1])} and ended at {end}"
    traces = _steps(runs, "lr")
    layout = {
        "xaxis": axis(STEPS.title),
        "yaxis": axis("learning rate (per step)", rangemode="tozero", exponentformat="power"),
    }
    return figure("learning-rate", title, traces, layout)


def gradient_norm(runs: Sequence[Run]) -> Figure | None:
    """The gradient's norm before clipping at each step."""
    if not any(has(run.steps, "grad_norm") for run in runs):
        return None
    values = sorted((y, row["step"]) for run in runs for row, y in _known(run, "grad_norm"))
    middle, (top, step) = values[len(values) // 2][0], values[-1]
    title = f"Median gradient norm {digits(middle, 3)}, largest {digits(top, 3)} in step {digits(step)}"
    layout = {
        "xaxis": axis(STEPS.title),
        "yaxis": log_axis("gradient norm (L2, all parameters)", [v[0] for v in values]),
    }
    return figure("gradient-norm", title, _steps(runs, "grad_norm"), layout)


def _known(run: Run, key: str) -> list[tuple[dict, float]]:
    return [(row, y) for row, y in zip(run.steps, column(run.steps, key), strict=True) if y is not None]


def _steps(runs: Sequence[Run], key: str) -> list[Trace]:
    """One line a run against the step."""
    drawn = sorted(series(runs), key=lambda s: (s.front, outcome(s.run)))
    traces = []
    for one in drawn:
        x, y = curve(one.run.steps, STEPS, key)
        color = one.color if one.front else f"{one.color}/0.35"
        traces.append(line(x, y, label(one.run.name), color, width=1.5, showlegend=one.front and len(runs) > 1))
    return traces
