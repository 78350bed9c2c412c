"""All parameters side by side: update over weight, and stable ranks, over training."""

import math
from typing import Any

from spectrain.report._axes import axis, log_axis
from spectrain.report._figure import SCALE_SIZE, Figure, View, Views, label
from spectrain.report._files import number
from spectrain.report._histories import History, key_of, which
from spectrain.report._series import STEPS
from spectrain.report._words import digits

_SHARES = {
    "update_to_weight": "update / weight",
    "weight_stable_rank": "rank of weights",
    "update_stable_rank": "rank of updates",
}


_MEANINGS = {
    "update_to_weight": "norm of the update over norm of the weights",
    "weight_stable_rank": "stable rank of the weights",
    "update_stable_rank": "stable rank of the updates",
}


def overview(histories: dict[str, History]) -> Figure | None:
    """One row a parameter, one column a step, the colour is a figure of that parameter."""
    rows = [row for history in histories.values() for found in history.values() for row in found]
    keys = [k for k in _SHARES if any(number(row.get(k)) is not None for row in rows)]
    if not keys:
        return None
    views: Views = {
        (*key_of(histories, r), i): _overview_view(history, key)
        for r, history in enumerate(histories.values())
        for i, key in enumerate(keys)
    }
    controls = [*which(histories), ("show", [_SHARES[k] for k in keys])]
    caption = "Stable rank: squared Frobenius norm over squared spectral norm, the directions that carry a matrix."
    height = 130 + max(60, 17 * max(map(len, histories.values())))
    return Figure("all-parameters", views, controls, caption, height)


def _overview_view(history: History, key: str) -> View:
    steps = sorted({row["step"] for rows in history.values() for row in rows})
    tables = [{row["step"]: number(row.get(key)) for row in rows} for rows in history.values()]
    values = [[found.get(step) for step in steps] for found in tables]
    last = sorted(row[-1] for row in ([v for v in found.values() if v is not None] for found in tables) if row)
    title = _MEANINGS[key].capitalize()
    if last:
        title += f": {digits(last[0], 2)} to {digits(last[-1], 2)} at the last record"
    layout = {
        "xaxis": axis(STEPS.title, type="category" if len(steps) < 3 else "linear"),
        "yaxis": axis(_MEANINGS[key], autorange="reversed", automargin=True, showgrid=False, dtick=1),
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
