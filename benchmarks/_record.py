"""A dated record of a measurement: what was measured, on what, as Markdown for people and JSON for programs."""

import json
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import torch

import spectrain

RECORDS = Path(__file__).parent / "records"


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "spectrain": spectrain.__version__,
        "platform": platform.platform(),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write(name: str, *, claim: str, body: str, data: dict[str, Any], folder: Path = RECORDS) -> Path:
    """Write ``<date>_<name>.md`` and ``.json``; return the Markdown file."""
    now, here = datetime.now(UTC), machine()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}_{name}.md"
    facts = "; ".join(f"{key} {value}" for key, value in here.items())
    path.write_text(f"# {claim}\n\n{now:%Y-%m-%d %H:%M} UTC. {facts}.\n\n{body.rstrip()}\n", encoding="utf-8")
    record = {"claim": claim, "at": now.isoformat(timespec="seconds"), "machine": here, **data}
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, default=float) + "\n", encoding="utf-8")
    return path
