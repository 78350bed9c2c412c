"""Singular values of weights, updates and momenta over training, as bands between quantiles."""

import math
from collections.abc import Sequence

from spectrain.report._drawing.figure import ACCENT, Figure, Trace, View, Views, axis, line, log_axis
from spectrain.report._drawing.html import Section, digits, percent
from spectrain.report._drawing.series import STEPS, column, front
from spectrain.report._reading.files import Row, number
from spectrain.report._reading.run import History, Run, history_of, key_of, which
from spectrain.report._sections.norms import norms
from spectrain.report._sections.overview import overview

_KINDS = (("weight", "weights"), ("update", "updates"), ("momentum", "momentum"))


def spectra(runs: Sequence[Run]) -> Section | None:
    """The section on spectra: the bands of one parameter, the largest of each, all parameters side by side."""
    histories = {run.name: history_of(run.spectra) for run in front(runs) if run.spectra}
    if not histories:
        return None
    figures = [bands(histories), norms([run for run in front(runs) if run.spectra]), overview(histories)]
    return Section("spectra", "Singular values", [fig for fig in figures if fig is not None])


def bands(histories: dict[str, History]) -> Figure | None:
    """Quantile bands of the singular values; the parameter and the matrix are chosen on the page."""
    rows = [row for history in histories.values() for found in history.values() for row in found]
    kinds = [k for k in _KINDS if any(_quantiles(row, k[0]) for row in rows)]
    names = list(dict.fromkeys(name for history in histories.values() for name in history))
    if not kinds:
        return None
    views: Views = {}
    for r, history in enumerate(histories.values()):
        for i, name in enumerate(names):
            for j, (kind, word) in enumerate(kinds):
                told = [row for row in history.get(name, []) if _quantiles(row, kind)]
                if told:
                    views[*key_of(histories, r), i, j] = _band_view(told, kind, word)
    controls = [*which(histories), ("parameter", names), ("of", [word for _, word in kinds])]
    caption = "Lines, from below: smallest, 10 %, 25 %, median, 75 %, 90 % and largest singular value."
    return Figure("spectrum", views, controls, caption=caption, height=420)


def _quantiles(row: Row, kind: str) -> list[tuple[float, float]]:
    """The (quantile, singular value) pairs of a row that are numbers."""
    levels, values = row.get("quantiles"), row.get(kind)
    if not isinstance(levels, list) or not isinstance(values, list):
        return []
    found = [(number(q), number(s)) for q, s in zip(levels, values, strict=False)]
    return [(q, s) for q, s in found if q is not None and s is not None]


def _band_view(rows: list[Row], kind: str, word: str) -> View:
    tables = [dict(_quantiles(row, kind)) for row in rows]
    levels = sorted({q for found in tables for q in found})
    steps = column(rows, "step")
    columns = [[found.get(q) for found in tables] for q in levels]
    traces = [_band(steps, columns[i], q, i, len(levels)) for i, q in enumerate(levels)]
    values = [s for c in columns for s in c]
    whole = {"range": [steps[0], steps[-1]]} if len(steps) > 1 else {"tickvals": steps}
    layout = {
        "xaxis": axis(STEPS.title, **whole),
        "yaxis": _positive_axis(f"singular values of the {word}", values),
        "annotations": _end_labels(steps, columns, levels),
        "margin": {"r": 70},
    }
    return View(_band_title(rows, columns, kind, word), traces, layout)


def _positive_axis(title: str, values: Sequence[float | None]) -> dict:
    """Logarithmic, at most eight decades, at least a factor of four: a flat spectrum shall look flat."""
    there = [s for s in values if s is not None and s > 0]
    top = max(there, default=1.0)
    low = min((s for s in there if s >= 1e-8 * top), default=top)
    slack = max(1.08, math.sqrt(4 * low / top)) if low * 4 > top else 1.08
    ends = [low / slack, top * slack]
    return log_axis(title, ends, range=[math.log10(v) for v in ends])


def _end_labels(
    steps: Sequence[float | None], columns: list[list[float | None]], levels: Sequence[float]
) -> list[dict]:
    """Names at the right end of the median and, where there is room, of the rims."""
    ends = {level: c[-1] for level, c in zip(levels, columns, strict=True) if c[-1] is not None and c[-1] > 0}
    room = max(4.0, max(ends.values()) / min(ends.values())) ** 0.06 if ends else 1.0
    middle = ends.get(0.5)
    names = {0.5: "median", 0.0: "smallest", 1.0: "largest"}
    style = {"showarrow": False, "xanchor": "left", "xshift": 6, "x": steps[-1]}
    return [
        {**style, "text": name, "y": math.log10(ends[level])}
        for level, name in names.items()
        if level in ends and (level == 0.5 or middle is None or max(ends[level] / middle, middle / ends[level]) > room)
    ]


def _band(steps: Sequence[float | None], values: list[float | None], level: float, index: int, count: int) -> Trace:
    middle, lone = abs(2 * index - (count - 1)) / max(1, count - 1), len(values) == 1
    fill = {} if index == 0 else {"fill": "tonexty", "fillcolor": f"{ACCENT}/{0.34 - 0.28 * _outer(index, count):.2f}"}
    style = {"mode": "markers", "marker": {"color": ACCENT, "size": 7}} if lone else {}
    color, width = (ACCENT, 2.5) if middle == 0 else (f"{ACCENT}/0.45", 0.8)
    positive = [s if s is not None and s > 0 else None for s in values]
    name = {0.0: "smallest", 0.5: "median", 1.0: "largest"}.get(level, f"{100 * level:g} %")
    return line(steps, positive, name, color, width=width, showlegend=False, **fill, **style)


def _outer(index: int, count: int) -> float:
    """How far the band under line ``index`` is from the middle: 0 inside, 1 at the rim."""
    center = (count - 1) / 2
    return max(0.0, (abs(index - 0.5 - center) - 0.5) / max(1.0, center - 1))


def _band_title(rows: list[Row], columns: list[list[float | None]], kind: str, word: str) -> str:
    first, last, low = columns[-1][0], columns[-1][-1], columns[0][-1]
    rank = number(rows[-1].get(f"{kind}_stable_rank"))
    if first is None or last is None:
        return f"Singular values of the {word}"
    spread = f", {_spread(last / low)}" if low and low > 0 else ""
    tail = f"; stable rank {digits(rank, 3)}" if rank is not None else ""
    time = f"{digits(first, 3)} at first, {digits(last, 3)} at last" if len(rows) > 1 else digits(last, 3)
    return f"Largest singular value of the {word}: {time}{spread}{tail}"


def _spread(ratio: float) -> str:
    """How far apart the largest and the smallest are."""
    return f"{digits(ratio, 2)} times the smallest" if ratio > 1.5 else f"{percent(ratio - 1)} above the smallest"
