"""Many names side by side over training: all parameters by update and rank, all activations by size and rank."""

import math
from collections.abc import Sequence
from typing import Any

from spectrain.report._drawing.figure import SCALE_SIZE, Figure, View, Views, axis, label, log_axis
from spectrain.report._drawing.html import Section, digits
from spectrain.report._drawing.series import STEPS, front
from spectrain.report._reading.files import number
from spectrain.report._reading.run import History, Run, history_of, key_of, which

_PARAMETERS = {
    "update_to_weight": ("update / weight", "norm of the update over norm of the weights"),
    "weight_stable_rank": ("rank of weights", "stable rank of the weights"),
    "update_stable_rank": ("rank of updates", "stable rank of the updates"),
    "weight_entropy": ("entropy of weights", "entropy of the squared singular values of the weights, 1 if all alike"),
    "update_rms": ("rms of updates", "root mean square of the update"),
}
_STABLE = "Stable rank: squared Frobenius norm over squared spectral norm, the directions that carry a matrix."
_ACTIVATIONS = {
    "rms": ("rms", "root mean square of the activations"),
    "largest": ("largest", "largest activation, in absolute value"),
    "quantile_0.99": ("99 % quantile", "number below which 99 % of the activations lie"),
    "spectral_norm": ("spectral norm", "spectral norm of the matrix of all tokens"),
    "effective_rank": ("effective rank", "effective rank of the activations"),
    "stable_rank": ("stable rank", "stable rank of the activations"),
    "not_finite": ("not finite", "activations that are not finite"),
}
_EFFECTIVE = "On held-out text. Effective rank: the exponential of the entropy of the singular values. "


def overview(histories: dict[str, History]) -> Figure | None:
    """One row a parameter, one column a step, the colour is a figure of that parameter."""
    return _map("all-parameters", histories, _PARAMETERS, caption=_STABLE)


def activations(runs: Sequence[Run]) -> Section | None:
    """The section on what passes between the weights: one row a name, one column a step."""
    histories = {run.name: history_of(run.activations) for run in front(runs) if run.activations}
    fig = _map("all-activations", histories, _ACTIVATIONS, caption=_EFFECTIVE + _STABLE)
    return Section("activations", "Activations", [fig]) if fig else None


def _map(name: str, histories: dict[str, History], known: dict[str, tuple[str, str]], *, caption: str) -> Figure | None:
    rows = [row for history in histories.values() for found in history.values() for row in found]
    keys = [k for k in known if any(number(row.get(k)) is not None for row in rows)]
    if not keys:
        return None
    views: Views = {
        (*key_of(histories, r), i): _map_view(history, key, known[key][1])
        for r, history in enumerate(histories.values())
        for i, key in enumerate(keys)
    }
    controls = [*which(histories), ("show", [known[k][0] for k in keys])]
    height = 130 + max(60, 17 * max(map(len, histories.values())))
    return Figure(name, views, controls, caption, height)


def _map_view(history: History, key: str, meaning: str) -> View:
    steps = sorted({row["step"] for rows in history.values() for row in rows})
    tables = [{row["step"]: number(row.get(key)) for row in rows} for rows in history.values()]
    values = [[found.get(step) for step in steps] for found in tables]
    last = sorted(row[-1] for row in ([v for v in found.values() if v is not None] for found in tables) if row)
    title = meaning[0].upper() + meaning[1:]
    if last:
        title += f": {digits(last[0], 2)} to {digits(last[-1], 2)} at the last record"
    layout = {
        "xaxis": axis(STEPS.title, type="category" if len(steps) < 3 else "linear"),
        "yaxis": axis(meaning, autorange="reversed", automargin=True, showgrid=False, dtick=1),
        "hovermode": "closest",
    }
    names = [label(name.removesuffix(".weight")) for name in history]
    trace = {"type": "heatmap", "x": steps, "y": names, **_colors(values)}
    return View(title, [trace], layout, {"yaxis": {"showticklabels": False, "ticks": ""}})


def _colors(values: list[list[float | None]]) -> dict[str, Any]:
    """The coloured part of a heat map, by logarithm where the values are positive and span a decade."""
    known = [v for row in values for v in row if v is not None]
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "len": 1.0}
    common = {
        "customdata": values,
        "colorscale": [[i / (SCALE_SIZE - 1), f"--scale-{i}"] for i in range(SCALE_SIZE)],
        "hovertemplate": "%{y}<br>step %{x}<br>%{customdata:.4g}<extra></extra>",
    }
    if not known or min(known) <= 0 or max(known) < 10 * min(known):
        return {"z": values, "colorbar": bar, **common}
    ticks = log_axis("", known)
    bar |= {"tickvals": [math.log10(v) for v in ticks["tickvals"]], "ticktext": ticks["ticktext"]}
    return {"z": [[None if v is None else math.log10(v) for v in row] for row in values], "colorbar": bar, **common}
