"""The largest attention logit of each layer over training, and the threshold above which heads were clipped."""

from collections.abc import Sequence

from spectrain.report._drawing.figure import Figure, View, Views, axis, line, log_axis, series_color
from spectrain.report._drawing.html import Section, digits
from spectrain.report._drawing.series import STEPS, chosen, column, curve, front, has, layers_of, level, which
from spectrain.report._reading.files import number
from spectrain.report._reading.run import Run

_KEY = "max_logit"


def logits(runs: Sequence[Run]) -> Section | None:
    """The section on logits: one line a layer; of several runs each by itself, on one vertical axis."""
    shown = [run for run in front(runs) if has(run.steps, _KEY)]
    if not shown:
        return None
    top = max(y for run in shown for y in column(run.steps, _KEY) if y is not None)
    views: Views = {chosen(shown, r): _view(run, top) for r, run in enumerate(shown)}
    caption = "Scaled as the softmax sees it, over all heads and all tokens of a step, before its update and clip."
    return Section("logits", "Attention logits", [Figure("largest-logits", views, which(shown), caption=caption)])


def _view(run: Run, top: float) -> View:
    layers, limit = layers_of(run.steps, _KEY), number(run.config.get("qk_clip"))
    keys = [(f"layer {layer}", f"{_KEY}.{layer}") for layer in layers] or [("largest", _KEY)]
    traces = []
    for i, (name, key) in enumerate(keys):
        x, y = curve(run.steps, STEPS, key)
        positive = [value if value is not None and value > 0 else None for value in y]
        traces.append(line(x, positive, name, series_color(i, len(keys)), width=1.5))
    if limit is not None:
        traces.append(level(run.steps, limit, "threshold"))
    values = [y for trace in traces for y in trace["y"] if y is not None]
    layout = {"xaxis": axis(STEPS.title), "yaxis": log_axis("largest logit", [*values, top])}
    return View(_title(run, clips=limit is not None), traces, layout)


def _title(run: Run, *, clips: bool) -> str:
    known = [(y, row["step"]) for row, y in zip(run.steps, column(run.steps, _KEY), strict=True) if y is not None]
    top, step = max(known)
    words = f"The largest logit was {digits(top, 3)}, in step {digits(step)}"
    if not clips:
        return f"{words}, and {digits(known[-1][0], 3)} at the end"
    count = sum(bool(clipped) for clipped in column(run.steps, "clipped_heads"))
    return f"{words}; heads were clipped in {count} of {len(run.steps)} steps"
