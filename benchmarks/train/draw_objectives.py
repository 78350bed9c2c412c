"""The objectives of MeanFlow at equal steps, with their controls, and what a step of each costs: article 10958.

    python -m benchmarks.train.draw_objectives

The article: the second objective (model) trains nearly twice as fast as the first (full) without visible loss; without
stop-gradient the third (data) loses one-step generation (leaky); the shortcut model is an empirical forerunner. These
two and flow matching are controls, many times behind in one step, and run on the first seed only. Runs that are
finished in --runs are kept. Steps are timed in processor time, so that load tells little.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import few_pictures
from benchmarks.train.draw_one_step import SMALL, draw_all, pace

OBJECTIVES = ("full", "model", "data", "leaky", "shortcut", "flow")
CONTROLS = ("leaky", "shortcut", "flow")
KEYS = ("one_step_frechet", "one_step_accuracy", "many_step_frechet", "many_step_accuracy")


def seconds(objectives: Sequence[str], *, rounds: int, paced: int, model: Mapping[str, Any]) -> dict[str, float]:
    """Processor seconds of a step of each objective: the median over rounds in turns."""
    found: dict[str, list[float]] = {name: [] for name in objectives}
    for _ in range(rounds):
        for name in objectives:
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(pace(Path(folder), count=paced, **model, objective=name))
    return {name: statistics.median(values) for name, values in found.items()}


def measure(
    *,
    runs: Path,
    objectives: tuple[str, ...] = OBJECTIVES,
    controls: tuple[str, ...] = CONTROLS,
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 1000,
    model: Mapping[str, Any] = {"threads": 1, "muon_dtype": "float32"},
    source: Callable[[Path], tuple[str, ...]] | None = None,
    rounds: int = 3,
    paced: int = 12,
) -> Found:
    """Runs of every objective on every seed, of ``controls`` on the first, on scikit-learn's digits or what ``source``
    writes.
    """
    model = {**model, "data": source(runs / "source")} if source else dict(model)
    rows = draw_all(runs, objectives, seeds[:1], steps, model)
    rows += draw_all(runs, [name for name in objectives if name not in controls], seeds[1:], steps, model)
    cost = seconds(objectives, rounds=rounds, paced=paced, model=model)
    base = cost[objectives[0]]
    lines = []
    for name in objectives:
        own = [row for row in rows if row["objective"] == name]
        cells = [_spread([row[key] for row in own]) for key in KEYS]
        lines.append([name, *cells, f"{cost[name] / base:.2f}"])
    header = ["objective", *(key.replace("_", " ") for key in KEYS), f"time of a step, {objectives[0]} = 1"]
    best = {
        name: statistics.fmean(r["one_step_frechet"] for r in rows if r["objective"] == name) for name in objectives
    }
    body = (
        f"{len(seeds)} seeds, of controls ({', '.join(controls)}) one, {steps:,} steps each, mean (range); Frechet "
        f"distances in the features of a judge, less is better. Processor time of a step, median of {rounds} rounds in "
        f"turns.\n\n{_record.table(header, lines)}"
    )
    least = min(best, key=lambda name: best[name])
    figures = {"least": least, "frechet": best[least], "share": cost[objectives[min(1, len(cost) - 1)]] / base}
    return Found(
        rows=[*rows, *({"objective": k, "step seconds": v} for k, v in cost.items())], body=body, figures=figures
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} ... {max(values):.3f})"


if __name__ == "__main__":
    main(
        "draw_objectives",
        "Objectives of MeanFlow at {steps} steps: the least one-step distance is {frechet:.1f}, of {least}; a step "
        "with the derivative held constant takes {share:.2f} of one with all gradients",
        measure,
        smoke={
            "source": few_pictures,
            "model": SMALL,
            "objectives": ("full", "shortcut"),
            "steps": 1,
            "seeds": (0,),
            "rounds": 1,
            "paced": 2,
        },
    )
