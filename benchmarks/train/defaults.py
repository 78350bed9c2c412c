"""Bits a byte at equal tokens: the defaults of `spectrain train` beside those of before, on the same batches.

    python -m benchmarks.train.defaults                          # depth 4, the standard library's source
    python -m benchmarks.train.defaults --depth 2 --steps 640

Before: one rate for matrices, embedding and head, and a last rate of nothing. Finished runs in --runs are kept.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY, finish_run, summary
from spectrain.train import TrainConfig

BEFORE: dict[str, Any] = {"embedding_lr": 1.0, "head_lr": 1.0, "weight_decay": 0.1, "final_lr": 0.0, "warmup": 20}
"""The defaults until 2026-11-29."""
MODEL = {"threads": 1, "compile": True, "eval_interval": 10**6, "save_interval": 10**6, "log_interval": 1000}


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    depth: int = 4,
    steps: int = 160,
    optimizers: tuple[str, ...] = ("muon", "adamw"),
    seeds: tuple[int, ...] = (0, 1),
    model: Mapping[str, Any] = MODEL,
) -> Found:
    """All runs; the rows of the record say what each came to."""
    shared = {**FIXED, "data": data, **model, "depth": depth, "max_steps": steps}
    rows = []
    for optimizer in optimizers:
        for seed in seeds:
            for name, settings in (("before", BEFORE), ("now", {})):
                folder = runs / f"{name}-{optimizer}-d{depth}-{steps}-seed{seed}"
                one = {**shared, "optimizer": optimizer, "seed": seed, **settings}
                found = summary(finish_run(folder, **one))
                rows.append({"defaults": name, "optimizer": optimizer, "seed": seed, "loss": found["validation_loss"],
                             "bits_per_byte": found["bits_per_byte"], "tokens": found["tokens"]})  # fmt: skip
    fallen = {name: _fall(rows, name) for name in optimizers}
    lines = [[row[key] if key in ("defaults", "optimizer", "seed") else f"{row[key]:.4f}"
              for key in ("defaults", "optimizer", "seed", "loss", "bits_per_byte")] for row in rows]  # fmt: skip
    now, _ = TrainConfig(**shared).derive()
    body = (
        _record.table(["defaults", "optimizer", "seed", "loss", "bits/byte"], lines)
        + f"\n\nAfter {steps} steps of {now.tokens_per_step:,} tokens at depth {depth}; loss and bits a byte are those "
        f"of all held-out text. Before: {', '.join(f'{key} {value:g}' for key, value in BEFORE.items())}."
    )
    said = "; ".join(f"{name} {before:.4f} to {after:.4f}" for name, (before, after) in fallen.items())
    return Found(rows=rows, body=body, figures={"said": said}, part=f"d{depth}_{steps}")


def _fall(rows: list[dict[str, Any]], optimizer: str) -> tuple[float, float]:
    """Mean bits a byte of an optimizer, before and now."""
    before, after = (
        statistics.fmean(
            row["bits_per_byte"] for row in rows if (row["defaults"], row["optimizer"]) == (name, optimizer)
        )
        for name in ("before", "now")
    )
    return before, after


if __name__ == "__main__":
    main(
        "defaults",
        "Bits a byte after {steps} steps at depth {depth}, defaults of before and of now, means of {seeds}: {said}",
        measure,
        smoke={"model": TINY, "steps": 2, "depth": 1, "seeds": (0,), "optimizers": ("muon",)},
    )
