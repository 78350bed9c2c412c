"""How the experts of each layer were loaded: MaxVio, experts a token, penalty, and a heat map of every load."""

from collections.abc import Callable, Sequence
from typing import Any

from spectrain.report._drawing.figure import MUTED, SCALE_SIZE, Figure, Trace, View, Views, axis, line, series_color
from spectrain.report._drawing.html import Section, digits
from spectrain.report._drawing.series import STEPS, chosen, column, curve, front, has, layers_of, running_mean, which
from spectrain.report._reading.files import Row, number
from spectrain.report._reading.run import Run

_MOST_COLUMNS = 120
_KEY = "moe_max_violation"
_TAKEN = "moe_experts_a_token"
_PENALTY = "moe_penalty"


def experts(runs: Sequence[Run]) -> Section | None:
    """The section on experts: curves for all layers together, a heat map for each."""
    shown = [run for run in front(runs) if has(run.steps, _KEY)]
    if not shown:
        return None
    figures = [violations(shown), taken(shown), penalties(shown), loads(shown)]
    return Section("experts", "Experts", [fig for fig in figures if fig is not None])


def violations(runs: Sequence[Run]) -> Figure:
    """MaxVio of the layers: of each training step, averaged, and of the held-out text."""
    views: Views = {}
    for r, run in enumerate(runs):
        start = chosen(runs, r)
        views[*start, 0] = _violation_view(run, run.steps, "training batches, mean of the last 5 % of steps")
        if has(run.evals, _KEY):
            views[*start, 1] = _violation_view(run, run.evals, "held-out text")
    controls = [
        *which(runs),
        ("of", ["training", "held-out text"][: 2 if any(has(r.evals, _KEY) for r in runs) else 1]),
    ]
    caption = (
        "MaxVio: the largest load over the mean load, or with --moe-skew over the expert's own share, minus 1. Loads "
        "of one batch are uneven by chance and by its text; those of the held-out text are summed over all its tokens."
    )
    return Figure("max-violation", views, controls, caption)


def _violation_view(run: Run, rows: Sequence[Row], words: str) -> View:
    layers, smooth = layers_of(rows, _KEY), rows is run.steps
    traces = _by_layer(rows, _KEY, smooth=smooth)
    if not traces:
        traces = [line(*curve(rows, STEPS, _KEY, smooth=smooth), "largest", MUTED, width=1.8)]
    layout = {"xaxis": axis(STEPS.title), "yaxis": axis(f"MaxVio ({words})", rangemode="tozero")}
    return View(_violation_title(rows, layers, smooth=smooth), traces, layout)


def _by_layer(rows: Sequence[Row], key: str, *, smooth: bool = True) -> list[Trace]:
    """A line for each layer; of rows that are few, with their points."""
    layers = layers_of(rows, key)
    mode: dict[str, Any] = {} if smooth else {"mode": "lines+markers", "marker": {"size": 5}}
    return [
        line(*curve(rows, STEPS, f"{key}.{layer}", smooth=smooth), f"layer {layer}", series_color(i, len(layers)),
             width=1.8, **mode)
        for i, layer in enumerate(layers)
    ]  # fmt: skip


def _violation_title(rows: Sequence[Row], layers: Sequence[int], *, smooth: bool) -> str:
    keys = [f"{_KEY}.{layer}" for layer in layers] or [_KEY]
    last = []
    for key in keys:
        values = running_mean(column(rows, key)) if smooth else column(rows, key)
        known = [v for v in values if v is not None]
        last += known[-1:]
    where = "in training" if smooth else "on held-out text"
    if not last:
        return f"No MaxVio {where} was written"
    return f"MaxVio {where} ended at {_range(last)}"


def _range(values: Sequence[float]) -> str:
    """From the least to the largest of the layers; of one layer its value."""
    least = f"{digits(min(values), 3)} to " if len(values) > 1 else ""
    return f"{least}{digits(max(values), 3)}"


def taken(runs: Sequence[Run]) -> Figure | None:
    """How many experts a token took on average in each layer, where a threshold lets that vary."""
    caption = "A threshold gives hard tokens more experts; the bias holds the mean at --moe-top-k."
    return _of_each("experts-a-token", [run for run in runs if layers_of(run.steps, _TAKEN)], _taken_view, caption)


def penalties(runs: Sequence[Run]) -> Figure | None:
    """The auxiliary loss of all layers together over training."""
    caption = "Coefficient and all: what --moe-penalty adds to the loss that is differentiated, not to the one shown."
    return _of_each("experts-penalty", [run for run in runs if has(run.steps, _PENALTY)], _penalty_view, caption)


def _of_each(name: str, runs: Sequence[Run], view: Callable[[Run], View], caption: str) -> Figure | None:
    """One view a run; nothing of none."""
    views: Views = {chosen(runs, r): view(run) for r, run in enumerate(runs)}
    return Figure(name, views, which(runs), caption) if runs else None


def _taken_view(run: Run) -> View:
    traces = _by_layer(run.steps, _TAKEN)
    title = f"A token took {_range([_last(trace['y']) for trace in traces])} experts on average at the end"
    return View(title, traces, {"xaxis": axis(STEPS.title), "yaxis": axis("experts a token, mean of the last 5 %")})


def _last(values: Sequence[float | None]) -> float:
    """The last value that there is, of at least one."""
    return [value for value in values if value is not None][-1]


def _penalty_view(run: Run) -> View:
    x, y = curve(run.steps, STEPS, _PENALTY, smooth=True)
    layout = {"xaxis": axis(STEPS.title), "yaxis": axis("auxiliary loss, mean of the last 5 %", rangemode="tozero")}
    return View(
        f"The auxiliary loss ended at {digits(_last(y), 3)}", [line(x, y, "all layers", MUTED, width=1.8)], layout
    )


def loads(runs: Sequence[Run]) -> Figure | None:
    """The load of each expert over training, in mean loads; the layer is chosen on the page."""
    tables = [_tables(run) for run in runs]
    most = max(map(len, tables))
    if not most:
        return None
    views: Views = {
        (*chosen(runs, r), layer): _load_view(steps, shares, layer)
        for r, table in enumerate(tables)
        for layer, (steps, shares) in enumerate(table)
    }
    controls = [*which(runs), ("layer", [str(layer) for layer in range(most)])]
    caption = "1 is the mean load; an expert at 0 is idle. Each column is the mean of the steps up to the next one."
    height = 130 + max(120, 15 * max(len(view.traces[0]["y"]) for view in views.values()))
    return Figure("expert-loads", views, controls, caption, height)


Table = tuple[list[int | float], list[list[float]]]


def _tables(run: Run) -> list[Table]:
    """For each layer the first step of each column, and the loads of each expert in mean loads."""
    rows = [(row["step"], counts) for row in run.steps if (counts := _counts(row)) is not None]
    if not rows:
        return []
    shape = [len(layer) for layer in rows[-1][1]]
    rows = [(step, counts) for step, counts in rows if [len(layer) for layer in counts] == shape]
    width = -(-len(rows) // _MOST_COLUMNS)
    parts = [rows[i : i + width] for i in range(0, len(rows), width)]
    steps = [part[0][0] for part in parts]
    return [(steps, _shares([[counts[layer] for _, counts in part] for part in parts])) for layer in range(len(shape))]


def _shares(columns: list[list[list[float]]]) -> list[list[float]]:
    """Loads of an expert a row, summed over the steps of a column and divided by the column's mean."""
    summed = [[sum(each) for each in zip(*steps, strict=True)] for steps in columns]
    means = [sum(column) / len(column) or 1.0 for column in summed]
    return [[column[e] / mean for column, mean in zip(summed, means, strict=True)] for e in range(len(summed[0]))]


def _counts(row: Row) -> list[list[float]] | None:
    """The loads of a step, or None where they are missing or damaged."""
    layers = row.get("moe_loads")
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, list) and layer for layer in layers):
        return None
    counts = [[number(count) for count in layer] for layer in layers]
    good = all(count is not None and count >= 0 for layer in counts for count in layer)
    return counts if good else None  # type: ignore[return-value]


def _load_view(steps: list[int | float], shares: list[list[float]], layer: int) -> View:
    names = [f"expert {e}" for e in range(len(shares))]
    trace: Trace = {
        "type": "heatmap", "x": steps, "y": names, "z": shares, "zmin": 0, "zmax": max(2.0, *map(max, shares)),
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1.0},
        "colorscale": [[i / (SCALE_SIZE - 1), f"--scale-{i}"] for i in range(SCALE_SIZE)],
        "hovertemplate": "%{y}<br>step %{x}<br>%{z:.3g} mean loads<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": axis(STEPS.title, type="category" if len(steps) < 3 else "linear"),
        "yaxis": axis("load (mean loads)", autorange="reversed", automargin=True, showgrid=False, dtick=1),
        "hovermode": "closest",
    }
    last = sorted((row[-1], name) for row, name in zip(shares, names, strict=True))
    low, high = (f"{digits(share, 3)} ({name})" for share, name in (last[0], last[-1]))
    title = f"Layer {layer}: at the end the loads reach from {low} to {high} of the mean"
    return View(title, [trace], layout, {"yaxis": {"showticklabels": False, "ticks": ""}}, digits=4)
