"""What `spectrain check` found: sizes against the width, or losses against the learning rate."""

import math
from collections.abc import Sequence

from spectrain.report._drawing.figure import (
    ACCENT,
    MUTED,
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
from spectrain.report._drawing.html import Section, digits, paragraph, plain, table
from spectrain.report._reading.files import Row, number, objects
from spectrain.report._reading.run import Run

KINDS = {
    "decay": "share of a weight that a step takes",
    "start": "mean absolute output at the start",
    "activation": "mean absolute output after the steps",
    "change": "mean absolute change of outputs",
    "logits": "reach of attention's logits",
    "weight": "initial norm over sqrt(out / in)",
    "update": "norm of an update over sqrt(out / in)",
}


def check(runs: Sequence[Run]) -> Section | None:
    """The section on the first of these folders that holds a check."""
    found = next((run.check for run in runs if run.check), {})
    if not found:
        return None
    if found.get("kind") == "lr-transfer":
        return _transfer(found)
    judged = objects(found.get("judged"))
    drawn = _sizes(judged)
    body: list[Figure | str] = [paragraph(finding(found), of="finding"), *([drawn] if drawn else []), _table(judged)]
    return Section("width", f"Check of {plain(found.get('kind'))}", body)


def finding(found: Row) -> str:
    """The verdict in a sentence.

    >>> finding({"ok": True, "kind": "spectrum"})
    'Nothing that was looked at grows or shrinks with the width.'
    """
    if found.get("kind") == "lr-transfer":
        moved = digits(number(found.get("moved")), 3)
        drift = digits(number(found.get("drift")), 3)
        return (
            f"The best learning rate moves by a factor of {moved} on the grid, and by {drift} where parabolas through "
            "it are lowest; 2, a step of the grid, is allowed."
        )
    first = found.get("suspect")
    if not isinstance(first, dict):
        return "Nothing that was looked at grows or shrinks with the width."
    power, cure = digits(number(first.get("exponent")), 2), plain(first.get("multiplier"))
    return f"{plain(first.get('name'))}: the {plain(first.get('kind'))} goes as width^{power}. Begin there: {cure}."


def _sizes(judged: Sequence[Row]) -> Figure | None:
    """Every size against the width, over that of the smallest width; what fails stands out."""
    kinds = [kind for kind in KINDS if any(row.get("kind") == kind and _points(row) for row in judged)]
    if not kinds:
        return None
    failed = {row.get("kind") for row in judged if row.get("ok") is not True}
    kinds.sort(key=lambda kind: kind not in failed)
    views: Views = {}
    for i, kind in enumerate(kinds):
        views[i,] = _view([row for row in judged if row.get("kind") == kind], kind)
    return Figure("sizes", views, [("size", [KINDS[kind] for kind in kinds])], caption=_CAPTION, height=420)


_CAPTION = "Each line is a parameter or module, over its value at the smallest width; those that fail are in colour."


def _points(row: Row) -> list[tuple[float, float]]:
    values = row.get("values")
    found = [(number(float(w)), number(v)) for w, v in values.items()] if isinstance(values, dict) else []
    return [(w, v) for w, v in found if w is not None and v is not None and v > 0]


def _view(rows: Sequence[Row], kind: str) -> View:
    traces: list[Trace] = []
    for row in sorted(rows, key=lambda row: row.get("ok") is not True):
        pairs = _points(row)
        if len(pairs) > 1:
            ratios = [v / pairs[0][1] for _, v in pairs]
            style = {"width": 1.2} if row.get("ok") is True else {"width": 2.5}
            color = f"{MUTED}/0.6" if row.get("ok") is True else ACCENT
            traces.append(line([w for w, _ in pairs], ratios, label(row.get("name")), color, showlegend=False, **style))
    x = sorted({w for row in rows for w, _ in _points(row)})
    y = [v for trace in traces for v in trace["y"]] + [0.5, 2.0]
    bad = sum(row.get("ok") is not True for row in rows)
    title = f"{KINDS[kind].capitalize()}: " + (f"{bad} of {len(rows)} move" if bad else f"all {len(rows)} stay")
    ends = [math.log10(min(y)) - 0.02, math.log10(max(y)) + 0.02]
    wide = axis("width", type="log", tickvals=x, ticktext=[plain(v) for v in x])
    return View(title, traces, {"xaxis": wide, "yaxis": log_axis("over the smallest width", y, range=ends)})


def _table(judged: Sequence[Row]) -> str:
    rows = sorted(judged, key=lambda row: row.get("ok") is True)
    shown = [row for row in rows if row.get("ok") is not True] or rows[:12]
    head = ["kind", "name", "power of the width", "largest over smallest", "multiplier"]
    cells = [
        [
            plain(row.get("kind")),
            plain(row.get("name")),
            digits(number(row.get("exponent")), 3),
            digits(number(row.get("spread")), 4),
            plain(row.get("multiplier")) or ("passes" if row.get("ok") is True else ""),
        ]
        for row in shown
    ]
    return table(head, cells)


def _transfer(found: Row) -> Section:
    """Loss against learning rate, a line a width."""
    rows = objects(found.get("rows"))
    losses: dict[float, dict[float, list[float]]] = {}
    for row in rows:
        width, rate, loss = (number(row.get(key)) for key in ("width", "lr", "loss"))
        if width is not None and rate is not None and loss is not None:
            losses.setdefault(width, {}).setdefault(rate, []).append(loss)
    body: list[Figure | str] = [paragraph(finding(found), of="finding")]
    if losses:
        body.append(_curves(losses))
    cells = [
        [plain(w), plain(rate), digits(sum(v) / len(v))]
        for w, by in sorted(losses.items())
        for rate, v in sorted(by.items())
    ]
    return Section("width", "Learning rate and width", [*body, table(["width", "learning rate", "loss"], cells)])


def _curves(losses: dict[float, dict[float, list[float]]]) -> Figure:
    traces: list[Trace] = []
    for i, (width, by) in enumerate(sorted(losses.items())):
        rates = sorted(by)
        means = [sum(by[rate]) / len(by[rate]) for rate in rates]
        best = min(range(len(rates)), key=lambda k: means[k])
        sizes = [11 if k == best else 5 for k in range(len(rates))]
        color = series_color(i, len(losses))
        more = {"mode": "lines+markers", "marker": {"size": sizes, "color": color}}
        traces.append(line(rates, means, f"width {plain(width)}", color, **more))
    rates = sorted({rate for by in losses.values() for rate in by})
    layout = {
        "xaxis": axis("learning rate", type="log", tickvals=rates, ticktext=[plain(rate) for rate in rates]),
        "yaxis": axis("loss (nats per token)"),
    }
    title = "Loss against learning rate; the large point is the best of its width"
    return Figure("transfer", {(): View(title, traces, layout)}, caption="Means over the seeds.", height=420)
