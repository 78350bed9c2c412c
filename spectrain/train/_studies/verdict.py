"""From sizes at several widths to a verdict: what grows or shrinks, since when, and by what to multiply."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
TOLERANCES = {
    "weight": 0.2,
    "start": 0.12,
    "update": 0.2,
    "logits": 0.2,
    "activation": 0.3,
    "change": 0.45,
    "decay": 0.05,
}
"""Largest exponent e, in absolute value, of width^e that passes. A missing or wrong multiplier shows as 1/2 or 1."""
FALLING = {"update": 0.3}
"""The same of what falls, where it is another: at small widths AdamW's updates are nearer to rank one."""
KINDS = {
    "coordinates": ("decay", "start", "activation", "change", "logits"),
    "spectrum": ("decay", "weight", "update"),
}
TINY_DECAY = 1e-7
_MAY_FALL = ("start", "activation", "change", "weight")
CURES = {
    "decay": "weight decay",
    "weight": "initial deviation",
    "update": "learning rate",
    "start": "initial deviation",
    "activation": "learning rate",
    "change": "learning rate",
    "logits": "scale of the logits",
}


def judge(rows: Iterable[Row], kinds: Sequence[str]) -> list[Row]:
    """One row for each kind and name: values by width, exponent, spread (largest over smallest), and whether it is ok.

    The exponent is the slope of the least squares line through log value over log width, values being geometric means
    over seeds. Outputs of the head may shrink (at the start they do, as 1/sqrt(width)), not grow. What is zero at all
    widths is ok; zero at some of them is not.
    """
    by: dict[tuple[str, str], dict[int, list[float]]] = {}
    roles: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["kind"] in kinds:
            key = row["kind"], row["name"]
            by.setdefault(key, {}).setdefault(row["width"], []).append(row["value"])
            roles[key] = row.get("role", "")
    found = [_judge_one(kind, name, roles[kind, name], values) for (kind, name), values in by.items()]
    return sorted(found, key=lambda row: kinds.index(row["kind"]))


def _judge_one(kind: str, name: str, role: str, values: dict[int, list[float]]) -> Row:
    means = {width: _mean(found) for width, found in sorted(values.items())}
    if kind == "decay":
        means = {width: value if value > TINY_DECAY else 0.0 for width, value in means.items()}
    row = {"kind": kind, "name": name, "role": role, "values": means, "exponent": 0.0, "spread": 1.0, "ok": True}
    if not any(means.values()):
        return row
    if not all(0 < value < math.inf for value in means.values()):
        return {**row, "exponent": math.nan, "spread": math.inf, "ok": False, "multiplier": ""}
    e = slope(means)
    bad = e > TOLERANCES[kind] or (
        e < -FALLING.get(kind, TOLERANCES[kind]) and not (role == "output" and kind in _MAY_FALL)
    )
    row |= {"exponent": e, "spread": max(means.values()) / min(means.values()), "ok": not bad}
    return row if row["ok"] else {**row, "multiplier": advice(kind, e, min(means))}


def _mean(values: list[float]) -> float:
    """The geometric mean; 0 and what is not finite stay visible."""
    if not all(map(math.isfinite, values)):
        return math.inf
    return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0


def slope(values: dict[int, float]) -> float:
    """The power of the width that values follow.

    >>> round(slope({64: 3.0, 128: 6.0, 256: 12.0}), 12)
    1.0
    """
    x, y = [math.log(width) for width in values], [math.log(value) for value in values.values()]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def advice(kind: str, exponent: float, base: int) -> str:
    """What to multiply, rounded to half powers of the width.

    >>> advice("update", 0.93, 64)
    'learning rate x (64 / width)'
    >>> advice("decay", -0.5, 64)
    'weight decay x sqrt(width / 64)'
    """
    halves = max(1, round(2 * abs(exponent)))
    ratio = f"{base} / width" if exponent > 0 else f"width / {base}"
    power = {1: f"sqrt({ratio})", 2: f"({ratio})"}.get(halves, f"({ratio})^{halves / 2:g}")
    return f"{CURES[kind]} x {power}"


def suspect(judged: Sequence[Row], order: Sequence[str]) -> Row | None:
    """The row to begin with: the first kind that fails, there the first name in the order of the model, or None.

    Causes come before what they cause: weights and what they put out at the start, updates, outputs after the steps;
    and decay last, for a wrong learning rate is a wrong decay as well.
    """
    failed = [row for row in judged if not row["ok"]]
    if not failed:
        return None
    rank = {name: i for i, name in enumerate(order)}
    kinds = list(TOLERANCES)
    return min(failed, key=lambda row: (kinds.index(row["kind"]), rank.get(row["name"], len(rank))))
