"""Variants of a small run, each at the best of the same rates, over seeds: what comparisons of articles ask for."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._runs import FIXED, file_name, finish_run, summary
from spectrain.train import TrainConfig

SMALL: dict[str, Any] = {
    "depth": 2, "vocabulary": 1024, "block": 128, "batch_size": 16, "threads": 1, "eval_tokens": 2**40,
    "eval_interval": 10**6, "save_interval": 10**6, "log_interval": 1000,
}  # fmt: skip
"""A model whose step takes a tenth of a second on one thread, judged by all of the held-out text."""
RATES = (0.5, 1.0, 2.0)
"""Multiples of the default rate, of which each variant has the one that is best on the first seed."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where runs are kept, and what they share."""

    runs: Path
    shared: Mapping[str, Any]
    seeds: Sequence[int]
    rates: Sequence[float] = RATES
    best: dict[str, float] = field(default_factory=dict)
    """The chosen multiple of each variant."""

    def run(self, name: str, *, steps: int, seed: int, factor: float = 1.0, **settings: Any) -> Path | None:
        """The folder of a finished run of a variant; None where it did not end well."""
        one = {**FIXED, **self.shared, "max_steps": steps, "seed": seed, **settings}
        one["lr"] = factor * (one.get("lr") or TrainConfig(**one).derive()[0].lr)
        folder = self.runs / f"{file_name(name)}-{steps}-x{factor:g}-seed{seed}"
        try:
            return finish_run(folder, **one)
        except FloatingPointError:
            return None

    def loss(self, name: str, *, steps: int, seed: int, factor: float = 1.0, **settings: Any) -> float:
        """Nats a token of all held-out text at its end; infinite where it did not end well."""
        folder = self.run(name, steps=steps, seed=seed, factor=factor, **settings)
        return math.inf if folder is None else summary(folder)["validation_loss"]

    def choose(self, name: str, tried: Callable[[float], float]) -> float:
        """The multiple of the rate whose loss, as ``tried`` says, is least: chosen once for each name."""
        if name not in self.best:
            self.best[name] = min(self.rates, key=tried)
        return self.best[name]

    def losses(self, name: str, *, steps: int, tuned_at: int | None = None, **settings: Any) -> list[float]:
        """Of every seed, at the rate that is best on the first, after ``tuned_at`` steps or all of them."""
        first, short = self.seeds[0], tuned_at or steps
        factor = self.choose(name, lambda x: self.loss(name, steps=short, seed=first, factor=x, **settings))
        return [self.loss(name, steps=steps, seed=seed, factor=factor, **settings) for seed in self.seeds]


def judged(folder: Path, step: int) -> dict[str, float]:
    """What the validation after ``step`` steps said."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return next(row for row in rows if row["kind"] == "eval" and row["step"] == step)


def mean(values: Sequence[float]) -> str:
    """Mean and range of the seeds."""
    return f"{statistics.fmean(values):.4f} ({min(values):.4f} ... {max(values):.4f})"


def against(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean difference by seed, and its standard error (NaN of one seed)."""
    gaps = [a - b for a, b in zip(values, others, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
    return statistics.fmean(gaps), error


def beside(values: Sequence[float], others: Sequence[float]) -> str:
    """The same in words: the difference, and how many standard errors it is."""
    gap, error = against(values, others)
    return f"{gap:+.4f}" + (f" ± {error:.4f}" if math.isfinite(error) else "")


def edges(lab: Lab) -> str:
    """Which variants had their best at the end of the rates."""
    at = [f"{name} x{x:g}" for name, x in lab.best.items() if len(lab.rates) > 1 and x in (lab.rates[0], lab.rates[-1])]
    return ("At the end of the rates: " + ", ".join(at) + ". ") if at else ""


def finite(values: Iterable[float]) -> list[float]:
    """What JSON holds: a loss that is none is left out."""
    return [x for x in values if math.isfinite(x)]
