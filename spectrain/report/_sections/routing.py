"""Which parameter went to which algorithm, repeated layers in one row."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from spectrain.report._drawing.html import Section, amount, paragraph, percent, plain, table
from spectrain.report._drawing.series import front
from spectrain.report._reading.files import Row, number
from spectrain.report._reading.run import Run, proper_name

_FIRST = ("name", "algorithm", "shape", "matrix", "lr_factor")
_MOST = 2**63  # a file that claims more is damaged
_LAST = ("reason",)


def group(rows: Sequence[Row]) -> list[tuple[str, int, Row]]:
    """Rows that differ only in layer numbers, as (name, count, row), in order of first appearance.

    >>> rows = [{"name": f"blocks.{i}.norm.weight", "algorithm": "AdamW"} for i in range(4)]
    >>> group([*rows, {"name": "embed.weight"}])[0][:2]
    ('blocks.0…3.norm.weight', 4)
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        pattern = ".".join("#" if part.isdigit() else part for part in _parts(row))
        rest = {key: value for key, value in row.items() if key != "name"}
        groups[pattern, plain(rest)].append(row)
    return [(_joined([_parts(row) for row in alike]), len(alike), alike[0]) for alike in groups.values()]


def _parts(row: Row) -> list[str]:
    return str(row.get("name", "unnamed")).split(".")


def _joined(names: list[list[str]]) -> str:
    """One name for several that differ in numbers only."""
    return ".".join(_span(sorted(set(column), key=lambda n: (len(n), n))) for column in zip(*names, strict=True))


def _span(values: list[str]) -> str:
    if len(values) == 1:
        return values[0]
    contiguous = int(values[-1]) - int(values[0]) == len(values) - 1
    return f"{values[0]}…{values[-1]}" if contiguous else "{" + ",".join(values) + "}"


def elements(row: Row) -> int:
    """The number of parameters of a row, from its shape; 0 for what is no shape."""
    shape = row.get("shape")
    sizes = [int(n) for n in map(number, shape) if n is not None and n >= 0] if isinstance(shape, list) else []
    whole = math.prod(sizes) if sizes and len(sizes) == len(shape or ()) else 0
    return whole if whole < _MOST else 0


def totals(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Tensors and parameters of each algorithm, the largest first."""
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        name = proper_name(row.get("algorithm", "not recorded"))
        tensors, size = sums.get(name, (0, 0))
        sums[name] = (tensors + 1, size + elements(row))
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def sentence(rows: Sequence[Row]) -> str:
    """Who updates what, in words.

    >>> sentence([{"algorithm": "muon", "shape": [8, 8]}, {"algorithm": "adamw", "shape": [8]}])
    'Muon updates 1 tensor with 64 parameters (89 %), AdamW 1 tensor with 8 (11 %)'
    >>> sentence([{"algorithm": "muon", "shape": [8, 8]}, {"algorithm": "frozen", "shape": [8, 24]}])
    'Muon updates 1 tensor with 64 parameters (25 %), and 1 tensor with 192 (75 %) stays as it is'
    """
    found = totals(rows)
    whole = sum(size for _, size in found.values()) or 1
    what = {name: f"{count} tensor{'s' * (count > 1)} with {amount(size)}" for name, (count, size) in found.items()}
    share = {name: f"({percent(size / whole)})" for name, (_, size) in found.items()}
    moved = [name for name in found if name != "frozen"]
    pieces = [
        f"{name}{' updates' if i == 0 else ''} {what[name]}{' parameters' if i == 0 else ''} {share[name]}"
        for i, name in enumerate(moved)
    ]
    if "frozen" in found:
        stay = "stay as they are" if found["frozen"][0] > 1 else "stays as it is"
        pieces.append(f"and {what['frozen']} {share['frozen']} {stay}")
    return ", ".join(pieces)


def routing(runs: Sequence[Run]) -> Section | None:
    """The section on routing; runs that routed alike share a table."""
    tables: dict[str, tuple[list[str], list[Row]]] = {}
    for run in front(runs):
        if run.routing:
            tables.setdefault(plain(run.routing), ([], run.routing))[0].append(run.name)
    if not tables:
        return None
    parts = []
    for names, rows in tables.values():
        who = f"{', '.join(names)}: " if len(tables) > 1 else ""
        parts += [paragraph(f"{who}{sentence(rows)}.", of="finding"), _table(rows)]
    return Section("routing", "Which parameter went where", list(parts))


def _table(rows: Sequence[Row]) -> str:
    groups = group(rows)
    known = (*_FIRST, *_LAST)
    others = dict.fromkeys(key for row in rows for key in row if key not in known)
    keys = [*_FIRST, *others, *_LAST]
    used = [key for key in keys if key == "name" or any(plain(row.get(key)) for _, _, row in groups)]
    head = [key.replace("_", " ") for key in used]
    body = [[name, str(count), *(_cell(key, row) for key in used[1:])] for name, count, row in groups]
    return table([head[0], "tensors", *head[1:]], body, of="routing")


def _cell(key: str, row: Row) -> str:
    if key == "algorithm":
        return proper_name(row.get(key, "not recorded"))
    return re.sub(r"(?<=\d)x(?=\d)", " × ", plain(row.get(key))) if key == "matrix" else plain(row.get(key))
