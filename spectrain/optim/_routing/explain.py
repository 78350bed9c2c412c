"""The table that says where each parameter went, and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from spectrain.optim._step.settings import Settings

Row = dict[str, Any]
COLUMNS = ("name", "shape", "matrix", "algorithm", "lr_factor", "weight_decay", "reason")


def rows(groups: Iterable[dict[str, Any]]) -> list[Row]:
    """Return one plain dictionary for each parameter of complete parameter groups."""
    return [
        _row(group, settings, p, name, reason)
        for group in groups
        for settings in [Settings.of(group)]
        for p, name, reason in zip(group["params"], group["param_names"], group["reasons"], strict=True)
    ]


def explain(groups: Sequence[dict[str, Any]]) -> list[Row]:
    """Print the table of complete groups, frozen parameters folded into its last line, and return all rows."""
    entries = rows(groups)
    params = [p for group in groups for p in group["params"]]
    moving = [entry for entry, p in zip(entries, params, strict=True) if p.requires_grad]
    if moving:
        print(table(moving))
    frozen = [p for p in params if not p.requires_grad]
    if frozen:
        print(f"frozen, without state: {len(frozen)} parameters of {sum(p.numel() for p in frozen):,} entries")
    return entries


def _row(group: dict[str, Any], settings: Settings, p: Tensor, name: str, reason: str) -> Row:
    adamw, own = settings.algorithm == "adamw", group.get("lr_factor", 1.0)  # the latter of groups by mup
    rates = [own] if adamw else sorted({round(own * value, 6) for value in settings.factors(p.shape)})
    return {
        "name": name,
        "shape": list(p.shape),
        "matrix": "" if settings.algorithm != "muon" else _words(settings.shapes(p.shape)),
        "algorithm": settings.algorithm,
        "lr_factor": rates[0] if len(rates) == 1 else rates,
        "weight_decay": float(settings.weight_decay),
        "reason": reason,
    }


def _words(shapes: list[tuple[int, int]]) -> str:
    """``2 * 64x64 + 16x64`` for the shapes of several matrices."""
    counts = Counter(f"{out}x{in_}" for out, in_ in shapes)
    return " + ".join(shape if count == 1 else f"{count} * {shape}" for shape, count in counts.items())


def table(entries: list[Row], columns: tuple[str, ...] = COLUMNS) -> str:
    """Return rows as aligned text."""
    cells = [columns, *(tuple(_cell(entry[column]) for column in columns) for entry in entries)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return str(value)
