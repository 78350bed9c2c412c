"""Loss against training compute, as ``spectrain compare --depths`` fits it."""

import math

from spectrain.report._axes import log_axis
from spectrain.report._drawing.figure import Figure, figure, label, line, points, series_color
from spectrain.report._reading.files import Row, number, objects
from spectrain.report._reading.run import proper_name
from spectrain.report._words import digits


def saving(found: Row) -> str | None:
    """The compute that Muon saves in a sentence, or None where no scaling was fitted.

    >>> saving({"scaling": {"saved": {"ratio": 2.0, "low": 1.5, "high": 2.6, "at_flops": 1e15}}})
    'Muon needs 1/2 of the compute with which AdamW reaches its loss at 1e+15 FLOP (95 %: 1/1.5 to 1/2.6).'
    """
    scaled = found.get("scaling")
    saved = scaled.get("saved") if isinstance(scaled, dict) else None
    if not isinstance(saved, dict):
        return None
    ratio, low, high, at = (number(saved.get(name)) for name in ("ratio", "low", "high", "at_flops"))
    if ratio is None or low is None or high is None or at is None:
        return None
    return (
        f"Muon needs 1/{digits(ratio, 2)} of the compute with which AdamW reaches its loss at {at:.2g} FLOP "
        f"(95 %: 1/{digits(low, 2)} to 1/{digits(high, 2)})."
    )


def scaling(found: Row) -> Figure | None:
    """Each run a point, each optimizer's power law a line, on logarithmic axes."""
    scaled, rows = found.get("scaling"), objects(found.get("rows"))
    fits = scaled.get("fits") if isinstance(scaled, dict) else None
    if not isinstance(fits, dict) or not fits:
        return None
    traces, xs, ys = [], list[float](), list[float]()
    for i, (kind, fit) in enumerate(sorted(fits.items(), reverse=True)):
        color = series_color(i, len(fits))
        pairs = [
            (number(row.get("flops")), number(row.get("final_loss"))) for row in rows if row.get("optimizer") == kind
        ]
        good = [(x, y) for x, y in pairs if x is not None and y is not None]
        level, middle, slope = (number(fit.get(name)) for name in ("log_loss", "log_flops", "b"))
        if not good or level is None or middle is None or slope is None:
            continue
        x = [x for x, _ in good]
        name = label(proper_name(kind))
        ends = [min(x), max(x)]
        fitted = [math.exp(level - slope * (math.log(end) - middle)) for end in ends]
        traces += [
            line(ends, fitted, f"{name}: C^-{digits(slope, 2)}", color, width=2.5),
            points(x, [y for _, y in good], name, color, showlegend=False),
        ]
        xs, ys = [*xs, *x], [*ys, *(y for _, y in good)]
    if not traces:
        return None
    layout = {
        "xaxis": log_axis("training compute (FLOP)", xs),
        "yaxis": log_axis("final validation loss (nats per token)", ys),
        "hovermode": "closest",
    }
    caption = "Each point is a run; tokens in proportion to weights. Lines: least squares in logarithms."
    return figure("scaling", "Loss falls as a power of compute", traces, layout, caption=caption)
