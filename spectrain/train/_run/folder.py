"""The run folder: where each file stands, and metrics that survive a kill."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path


class RunFolder:
    """A run's files. Rows are appended to ``metrics.jsonl``; all else is written whole.

    One that only ``follows`` belongs to a rank beside the one that writes: what it appends goes nowhere.
    """

    def __init__(self, path: Path, *, follows: bool = False) -> None:
        self.path = path
        nowhere = Path(os.devnull)
        self.config = path / "config.json"
        self.environment = path / "environment.json"
        self.metrics = nowhere if follows else path / "metrics.jsonl"
        self.routing = path / "routing.json"
        self.polynomials = path / "polynomials.json"
        self.tokenizer = path / "tokenizer.json"
        self.samples = nowhere if follows else path / "samples.txt"
        self.model = path / "model.safetensors"
        self.average = path / "average.safetensors"
        self.summary = path / "summary.json"
        self.factors = path / "factors.json"
        self.schedule = path / "schedule.json"
        self.checkpoints = path / "checkpoints"
        self.listeners: list[Callable[[str, Mapping[str, object]], None]] = []
        """What hears each row after it is written, and of each checkpoint."""

    def record(self, kind: str, row: Mapping[str, object]) -> None:
        """Append one line to ``metrics.jsonl``. A number that is not finite becomes null."""
        line = json.dumps({"kind": kind, **row}, default=float, allow_nan=True)
        if "NaN" in line or "Infinity" in line:
            line = json.dumps({"kind": kind, **{k: _finite(v) for k, v in row.items()}}, default=float)
        with open(self.metrics, "a", encoding="utf-8") as file:  # a kill may leave half a line: a resume cuts it off
            file.write(line + "\n")
        self.tell(kind, row)

    def tell(self, kind: str, row: Mapping[str, object]) -> None:
        """Let those who listen hear what happened, without a line in ``metrics.jsonl``."""
        for listener in self.listeners:
            listener(kind, row)

    def sizes(self) -> dict[str, int]:
        """Bytes of the growing files, forced onto the disk: what a checkpoint remembers."""
        return {path.name: _synced_size(path) for path in (self.metrics, self.samples)}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Cut the growing files back to these sizes, so that a resumed run writes each row once.

        Raises ``ValueError`` when a file is shorter than the checkpoint says: rows are missing.
        """
        for path in (self.metrics, self.samples):
            wanted, there = sizes.get(path.name, 0), path.stat().st_size if path.exists() else 0
            if there < wanted:
                raise ValueError(
                    f"{path} has {there} bytes but the checkpoint was taken at {wanted}: it was cut or replaced. "
                    "Restore it, or start a new run in another --out-dir."
                )
            if there > wanted:
                os.truncate(path, wanted)


def _synced_size(path: Path) -> int:
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
