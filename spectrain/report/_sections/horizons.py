"""Comparisons of several lengths side by side: what share of AdamW's tokens and seconds, against the horizon."""

from collections.abc import Iterator, Sequence

from spectrain.report._drawing.figure import Figure, Trace, View, Views, axis, label, log_axis, series_color
from spectrain.report._drawing.html import Section, amount, digits
from spectrain.report._reading.files import Row, number
from spectrain.report._reading.run import proper_name

_TABLES = {
    "best": "each at its best",
    "controlled": "only the matrices' update different",
    "swept": "best rate of each",
}
_COSTS = {"tokens": "ratio", "seconds": "seconds_ratio"}


def horizons(compared: Sequence[Row]) -> Section | None:
    """The section where comparisons of at least two lengths were given."""
    found = sorted((one for one in compared if number(one.get("horizon"))), key=lambda one: number(one["horizon"]) or 0)
    if len({number(one["horizon"]) for one in found}) < 2:
        return None
    tables = [name for name in _TABLES if any(_against(one, name) for one in found)]
    views: Views = {
        (i, j): View(_title(found, table, cost), list(_traces(found, table, _COSTS[cost])), _layout(found, cost))
        for i, table in enumerate(tables)
        for j, cost in enumerate(_COSTS)
    }
    if not tables:
        return None
    controls = [("table", [_TABLES[name] for name in tables]), ("cost", list(_COSTS))]
    caption = (
        "To the validation loss that AdamW has at the end of a run of so many steps. Bars: 95 % interval of the mean "
        "over the seeds (Student), from three seeds on. Triangles: not reached on some seed, so at least this much."
    )
    drawn = Figure("horizons", views, controls, caption=caption)
    return Section("horizons", "Against the horizon", [drawn])


def _against(one: Row, table: str) -> dict[str, Row]:
    tables = one.get("tables")
    against = tables.get(table, {}).get("against") if isinstance(tables, dict) else None
    return {name: row for name, row in against.items() if isinstance(row, dict)} if isinstance(against, dict) else {}


def _optimizers(found: Sequence[Row], table: str) -> list[str]:
    return sorted({name for one in found for name in _against(one, table)})


def _traces(found: Sequence[Row], table: str, key: str) -> Iterator[Trace]:
    """A line of measured ratios with their intervals for each optimizer, and its bounds."""
    names = _optimizers(found, table)
    for i, name in enumerate(names):
        color, rows = (
            series_color(i, len(names)),
            [(one["horizon"], _against(one, table).get(name, {})) for one in found],
        )
        known = [(x, number(row.get(key)), row) for x, row in rows if number(row.get(key)) is not None]
        bounds = [(x, number(row.get(f"{key}_at_least"))) for x, row in rows if number(row.get(key)) is None]
        bounds = [(x, y) for x, y in bounds if y is not None]
        yield {
            "type": "scatter", "mode": "lines+markers", "name": label(proper_name(name)),
            "x": [x for x, _, _ in known], "y": [y for _, y, _ in known],
            "line": {"color": color, "width": 2.5}, "marker": {"color": color, "size": 7},
            "error_y": {
                "type": "data", "symmetric": False, "color": color,
                "array": [_reach(row, f"{key}_high", y) for _, y, row in known],
                "arrayminus": [_reach(row, f"{key}_low", y) for _, y, row in known],
            },
        }  # fmt: skip
        if bounds:
            yield {
                "type": "scatter", "mode": "markers", "name": f"{label(proper_name(name))}, at least",
                "x": [x for x, _ in bounds], "y": [y for _, y in bounds],
                "marker": {"color": color, "size": 9, "symbol": "triangle-up"},
            }  # fmt: skip


def _reach(row: Row, key: str, middle: float | None) -> float:
    """How far an end of the interval lies from the mean; 0 where none is known."""
    end = number(row.get(key))
    return 0.0 if end is None or middle is None else abs(end - middle)


def _layout(found: Sequence[Row], cost: str) -> dict[str, object]:
    steps = [number(one["horizon"]) for one in found]
    known = sorted({step for step in steps if step is not None})
    shown = {"tickvals": known, "ticktext": [amount(step) for step in known]}
    return {
        "xaxis": {**log_axis("steps of AdamW's run", known), **shown},
        "yaxis": axis(f"{cost}, as a share of AdamW's", rangemode="tozero"),
        "hovermode": "closest",
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                    "line": {"color": "--muted", "width": 1, "dash": "dot"}}],
    }  # fmt: skip


def _title(found: Sequence[Row], table: str, cost: str) -> str:
    """The longest horizon in words."""
    last = found[-1]
    pieces = []
    for name, row in sorted(_against(last, table).items()):
        value, bound = number(row.get(_COSTS[cost])), number(row.get(f"{_COSTS[cost]}_at_least"))
        if value is not None or bound is not None:
            said = digits(value, 2) if value is not None else f"at least {digits(bound or 0.0, 2)}"
            pieces.append(f"{proper_name(name)} {said}")
    after = amount(number(last["horizon"]) or 0)
    return f"Share of AdamW's {cost} after {after} steps: " + (", ".join(pieces) or "not measured")
