"""Loss against training compute for Muon and AdamW over models of several depths: the picture of a scaling law.

    python -m benchmarks.train.depths                     depths 2, 3, 4 and 6 on the standard library's source
    python -m benchmarks.train.depths --data FILE         other text

Each model gets tokens in proportion to its weights. Learning rates are the defaults of `spectrain train`, which follow
depth and optimizer. Finished runs in --runs are kept, so that an interrupted benchmark goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY
from spectrain import report, train
from spectrain.cli._compare import depths_table
from spectrain.train import TrainConfig

MODEL: dict[str, Any] = {}


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    steps: int = 80,
    depths: tuple[int, ...] = (2, 3, 4, 6),
    seeds: tuple[int, ...] = (0,),
    model: Mapping[str, Any] = MODEL,
) -> Found:
    """``steps`` at depth 4, other depths in proportion to their weights."""
    base = TrainConfig(**{**FIXED, "threads": 1, "data": data, **model, "max_steps": steps})
    result = train.compare_depths(base, depths=depths, optimizers=["muon", "adamw"], seeds=seeds, folder=runs)
    report.write([runs], out=runs / "report.html")
    print(depths_table(result))
    rows = sorted(result["rows"], key=lambda row: (row["optimizer"], row["depth"], row["seed"]))
    fits = result["scaling"]["fits"]
    body = _record.table(
        ["optimizer", "depth", "seed", "weights", "tokens", "PFLOP", "final loss"],
        [
            [row["optimizer"], row["depth"], row["seed"], f"{row['weights']:,}", f"{row['tokens']:,}",
             f"{row['flops'] / 1e15:.3g}", f"{row['final_loss']:.4f}"]
            for row in rows
        ],
    )  # fmt: skip
    body += "\n\n" + "; ".join(f"{n} C^-{fit['b']:.3f} (95 %: +- {fit['b_half']:.3f})" for n, fit in fits.items())
    body += (
        f".\n\n{steps} steps at depth 4, other depths in proportion to their weights; width is 64 x depth, and "
        "all other settings are the defaults of `spectrain train`: learning rates fall as 1 / depth from a sweep at "
        "depth 4, and are not tuned at each depth; AdamW's runs with few steps end in or just after the warm-up of 20, "
        "and may spike there. So this says what the defaults do, in short runs. Loss is that of all held-out text, in "
        "nats a token. The fit is log loss = a - b log C, C = (6 weights + 6 depth block width) tokens. With as many "
        "models as here the intervals say how well a line fits them, not what larger models would do."
    )
    figures = {f"{name} power": fit["b"] for name, fit in fits.items()} | result["scaling"]["saved"]
    return Found(rows=rows, body=body, figures=figures, data={"scaling": result["scaling"]})


if __name__ == "__main__":
    main(
        "depths",
        "Loss against compute C over depths {depths}: Muon C^-{muon power:.3f}, AdamW C^-{adamw power:.3f}; Muon needs "
        "1/{ratio:.2f} of AdamW's compute (95 %: 1/{low:.2f} to 1/{high:.2f})",
        measure,
        smoke={"model": TINY, "steps": 2, "depths": (1, 2, 3)},
    )
