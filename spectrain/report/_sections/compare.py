"""Several optimizers and learning rates side by side: what `spectrain compare` is for.

Loss against training compute, as ``spectrain compare --depths`` fits it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from spectrain.report._drawing.figure import Figure, View, axis, figure, label, line, log_axis, points, series_color
from spectrain.report._drawing.html import Section, amount, details, digits, paragraph, plain, table
from spectrain.report._reading.files import Row, number, objects
from spectrain.report._reading.run import Run, proper_name


def saving(found: Row) -> str | None:
    """The compute that Muon saves in a sentence, or None where no scaling was fitted.

    >>> saving({"scaling": {"saved": {"ratio": 2.0, "low": 1.5, "high": 2.6, "at_flops": 1e15}}})
    'To the lowest loss that both reached Muon needs 1/2 of the 1e+15 FLOP that AdamW needs (95 %: 1/1.5 to 1/2.6).'
    """
    scaled = found.get("scaling")
    saved = scaled.get("saved") if isinstance(scaled, dict) else None
    if not isinstance(saved, dict):
        return None
    ratio, low, high, at = (number(saved.get(name)) for name in ("ratio", "low", "high", "at_flops"))
    if ratio is None or low is None or high is None or at is None:
        return None
    return (
        f"To the lowest loss that both reached Muon needs 1/{digits(ratio, 2)} of the {at:.2g} FLOP that AdamW needs "
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
    tuned = ", ".join(str(name) for name in found.get("tuned_settings") or ())
    how = f"tuned at each depth ({tuned})" if tuned else "not tuned at each depth"
    caption = f"Each point is a run, {how}; tokens in proportion to weights. Lines: least squares in logarithms."
    return figure("scaling", "Loss falls as a power of compute", traces, layout, caption=caption)


_FEW = 8
_COLUMNS = ("optimizer", "lr", "seed", "final_bits_per_byte", "final_loss", "tokens", "tokens_to_target")


def of_runs(runs: Sequence[Run]) -> Row:
    """The comparison that several runs make by themselves, when no ``compare.json`` was written."""
    rows = [
        {
            "optimizer": run.optimizer,
            "lr": run.config.get("lr"),
            "seed": run.config.get("seed"),
            "final_bits_per_byte": run.final("bits_per_byte"),
            "final_loss": run.final("loss"),
            "tokens": run.final("tokens"),
        }
        for run in runs
    ]
    return {"rows": rows}


def comparison(found: Row) -> Section | None:
    """The section on a comparison: the verdict, the sweep over learning rates, and all rows."""
    rows = objects(found.get("rows"))
    if len(rows) < 2:
        return None
    scaled = scaling(found)
    drawn = [figure for figure in (scaled or learning_rates(rows),) if figure]
    whole = _table(rows)
    body: list[Figure | str] = [paragraph(verdict(found), of="finding"), *drawn]
    body.append(details(f"All {len(rows)} runs", whole) if len(rows) > _FEW else whole)
    return Section("comparison", "Comparison", body)


_TABLES = {
    "controlled": "With the update of the matrices as the only difference",
    "best": "Each at its best",
    "swept": "At the best learning rate of each",
}


def verdict(found: Row) -> str:
    """The result in a sentence for each table and optimizer.

    >>> verdict({"horizon": 160, "tables": {"best": {"target": 1.2345, "against": {"muon": {"ratio": 0.68}}}}})
    "Each at its best, Muon reached AdamW's validation loss after 160 steps, 1.234, with 0.68 of its tokens (one seed)."
    """
    if (saved := saving(found)) is not None:
        return saved
    tables = found.get("tables")
    if not isinstance(tables, dict):  # as one table and one optimizer were written before there were more
        tables = {"swept": {"target": found.get("target"), "against": {"muon": found}}} if "target" in found else {}
    sentences = [
        _sentence(_TABLES.get(name, name), one, proper_name(other), ratio, number(found.get("horizon")))
        for name, one in tables.items()
        if isinstance(one, dict) and isinstance(one.get("against"), dict)
        for other, ratio in one["against"].items()
        if isinstance(ratio, dict)
    ]
    return " ".join(sentences) or _best_run(objects(found.get("rows")))


def _sentence(where: str, one: Row, other: str, found: Row, horizon: float | None) -> str:
    """How one optimizer fared against AdamW in one table."""
    ratio, bound, target = number(found.get("ratio")), number(found.get("ratio_at_least")), number(one.get("target"))
    after = f" after {amount(horizon)} steps" if horizon is not None else ""
    level = f", {digits(target)}" if target is not None else ""
    seeds, missed = found.get("ratio_by_seed"), found.get("not_reached")
    count = len(seeds) if isinstance(seeds, dict) else 1
    if ratio is not None:
        low, high = number(found.get("ratio_low")), number(found.get("ratio_high"))
        said = f"{count} seeds" if count > 1 else "one seed"
        said += f", 95 %: {digits(low, 2)} to {digits(high, 2)}" if low is not None and high is not None else ""
        comma = "," if level else ""
        return (
            f"{where}, {other} reached AdamW's validation loss{after}{level}{comma} with {digits(ratio, 2)} of its "
            f"tokens ({said})."
        )
    if isinstance(missed, dict) and missed and bound is not None:
        return (
            f"{where}, {other} did not reach AdamW's validation loss{after}{level} on {len(missed)} of {count} seeds: "
            f"it needs at least {digits(bound, 2)} of its tokens."
        )
    return f"{where}, {other} did not reach AdamW's validation loss{after}{level}."


def _best_run(rows: Sequence[Row]) -> str:
    known = [(y, _optimizer(row), plain(row.get("lr"))) for row in rows if (y := _outcome(row)) is not None]
    if not known:
        return "No run wrote a final figure."
    _, optimizer, lr = min(known)
    return f"The best run is {optimizer}'s" + (f" at learning rate {lr}." if lr else ".")


def _optimizer(row: Row) -> str:
    return proper_name(row.get("optimizer", "not recorded"))


def _measure(rows: Sequence[Row]) -> tuple[str, str]:
    if any(number(row.get("final_bits_per_byte")) is not None for row in rows):
        return "final_bits_per_byte", "final bits per byte"
    return "final_loss", "final validation loss (nats per token)"


def _outcome(row: Row) -> float | None:
    found = number(row.get("final_bits_per_byte"))
    return number(row.get("final_loss")) if found is None else found


def learning_rates(rows: Sequence[Row]) -> Figure | None:
    """The final figure against the learning rate: each seed a point, the mean of the seeds a line."""
    key, title = _measure(rows)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        rate, y = number(row.get("lr")), number(row.get(key))
        if rate is not None and rate > 0 and y is not None:
            found[_optimizer(row)].append((rate, y))
    if len({rate for pairs in found.values() for rate, _ in pairs}) < 2:
        return None
    kinds, traces = sorted(found, reverse=True), []
    for i, kind in enumerate(kinds):
        color = series_color(i, len(kinds))
        rates = sorted({rate for rate, _ in found[kind]})
        means = [mean(y for rate, y in found[kind] if rate == at) for at in rates]
        traces += [
            line(rates, means, label(kind), color, width=2.5),
            points([r for r, _ in found[kind]], [y for _, y in found[kind]], label(kind), color, showlegend=False),
        ]
    rates = sorted({rate for pairs in found.values() for rate, _ in pairs})
    layout = {
        "xaxis": axis("learning rate (per step)", type="log", tickvals=rates, ticktext=[plain(r) for r in rates]),
        "yaxis": axis(title),
        "hovermode": "closest",
    }
    missing = sum(_outcome(row) is None for row in rows)
    caption = "Each point is a run, the line joins the means over the seeds."
    if missing:
        caption += f" {missing} of {len(rows)} runs ended without a finite figure and are not drawn."
    return Figure("sweep", {(): View(_sweep_title(found), traces, layout)}, caption=caption)


def _sweep_title(found: dict[str, list[tuple[float, float]]]) -> str:
    best = {kind: min((y, rate) for rate, y in pairs) for kind, pairs in found.items()}
    pieces = [f"{kind} {digits(y)} at {plain(rate)}" for kind, (y, rate) in sorted(best.items(), key=lambda b: b[1])]
    return "Best of each optimizer: " + ", ".join(pieces)


def _table(rows: Sequence[Row]) -> str:
    keys = [*_COLUMNS, *dict.fromkeys(key for row in rows for key in row if key not in _COLUMNS)]
    used = [key for key in keys if any(plain(row.get(key)) for row in rows)]
    ordered = sorted(rows, key=lambda row: (_outcome(row) is None, _outcome(row) or 0.0))
    body = [[_cell(key, row) for key in used] for row in ordered]
    return table([key.replace("_", " ").replace("lr", "learning rate") for key in used], body)


def _cell(key: str, row: Row) -> str:
    if key == "optimizer":
        return _optimizer(row)
    value = number(row.get(key))
    if key.startswith("tokens"):
        return amount(value) if value is not None else "not reached" if key == "tokens_to_target" else ""
    return digits(value) if key.startswith("final") else plain(row.get(key))
