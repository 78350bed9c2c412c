"""Rows of metrics by name, spectra of parameters or statistics of activations, over training, run by run."""

from collections import defaultdict
from collections.abc import Sequence

from spectrain.report._reading.files import Row

_MOST_TIMES = 80


History = dict[str, list[Row]]


def history_of(found: Sequence[Row]) -> History:
    """The rows of each name, at most ``_MOST_TIMES`` of them."""
    rows: History = defaultdict(list)
    for row in found:
        rows[str(row.get("name", "unnamed"))].append(row)
    return {name: _fewer(history) for name, history in rows.items()}


def which(histories: dict[str, History]) -> list[tuple[str, list[str]]]:
    """The control that chooses the run, when there are several."""
    return [("run", list(histories))] if len(histories) > 1 else []


def _fewer(rows: list[Row]) -> list[Row]:
    if len(rows) <= _MOST_TIMES:
        return rows
    return [rows[round(i * (len(rows) - 1) / (_MOST_TIMES - 1))] for i in range(_MOST_TIMES)]


def key_of(histories: dict[str, History], index: int) -> tuple[int, ...]:
    """The part of a view's key that names the run."""
    return (index,) if len(histories) > 1 else ()
