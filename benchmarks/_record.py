"""A dated record of a measurement: what was measured, on what, as JSON for programs and as Markdown for people."""

import json
import math
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import spectrain
from spectrain.approx._schedules.cache import write_text

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
DOCS = ROOT / "docs"


@dataclass(slots=True, kw_only=True)
class Found:
    """What a program measured."""

    rows: list[dict[str, Any]]
    """One dictionary a case, numbers as they were measured."""
    body: str
    """The same as Markdown."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The few numbers that the claim names."""
    ratios: dict[str, float] = field(default_factory=dict)
    """Ratios of times, each by a name that says its case: figures too, and what ``--check`` compares."""
    data: dict[str, Any] = field(default_factory=dict)
    """What else belongs into the record."""
    part: str = ""
    """Ends the name of the record, where a program makes several."""
    pages: dict[str, Callable[[Path], object]] = field(default_factory=dict)
    """Files of docs/ that are drawn from this, each with what writes it."""


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def show(rows: Sequence[Mapping[str, object]], digits: int = 3) -> str:
    """Rows as a Markdown table, floats to so many digits."""
    cells = ([f"{v:.{digits}g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    return table(list(rows[0]), cells)


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "spectrain": spectrain.__version__,
        "commit": commit.stdout.strip() or "none",
        "platform": platform.platform(),
    }


def write(name: str, *, claim: str, found: Found, settings: Mapping[str, Any], folder: Path) -> Path:
    """Write ``<date>_<name>.json`` and ``.md``, each whole or not at all; return the Markdown file."""
    now, here, chosen = datetime.now(UTC), machine(), plain(settings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}_{name}.md"
    record = {
        "name": name, "claim": claim, "at": now.isoformat(timespec="seconds"), "machine": here, "settings": chosen,
        "figures": plain(found.figures | found.ratios), "rows": plain(found.rows), **plain(found.data),
    }  # fmt: skip
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2, allow_nan=False) + "\n")
    facts, given = ("; ".join(f"{key} {value}" for key, value in each.items()) for each in (here, chosen))
    head = f"# {claim}\n\n{now:%Y-%m-%d %H:%M} UTC. {facts}.\n\nSettings: {given or 'none'}.\n\n"
    write_text(path, head + found.body.rstrip() + "\n")
    return path


def newest(name: str, folder: Path) -> Path | None:
    """The newest record of a program, its JSON."""
    return max(folder.glob(f"????-??-??_{name}.json"), default=None)


def plain(value: object) -> Any:
    """A value as JSON has it: paths by their last part, and what is no number by its name, for JSON has no infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | range):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path | torch.dtype):
        return value.name if isinstance(value, Path) else str(value).removeprefix("torch.")
    if callable(value):
        return value.__name__
    number = float(value)  # type: ignore[arg-type]  # of NumPy and torch too
    return number if math.isfinite(number) else str(number)
