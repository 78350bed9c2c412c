"""Loss against training compute for Muon and AdamW over models of several depths: the picture of a scaling law.

    python -m benchmarks.train.depths                     depths 2, 3, 4 and 6 on the standard library's source
    python -m benchmarks.train.depths --data FILE         other text

Each model gets tokens in proportion to its weights, and each optimizer is tuned at each depth.
Finished runs in --runs are kept, so that an interrupted benchmark goes on.
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
    tune: int = 3,
    settings: tuple[str, ...] = ("lr",),
    model: Mapping[str, Any] = MODEL,
) -> Found:
    """``steps`` at depth 4, other depths in proportion to their weights."""
    base = TrainConfig(**{**FIXED, "threads": 1, "data": data, **model, "max_steps": steps})
    result = train.compare_depths(
        base, depths=depths, optimizers=["muon", "adamw"], seeds=seeds, folder=runs, tune=tune, settings=settings
    )
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
        f".\n\n{steps} steps at depth 4, other depths in proportion to their weights; width is 64 x depth. At each "
        f"depth each optimizer is tuned on the first seed over {', '.join(settings)} in at most {tune} runs, all other "
        "settings being the defaults of `spectrain train`. Loss is that of all held-out text, in "
        "nats a token. The fit is log loss = a - b log C, C = (6 weights + 6 depth block width) tokens. With as many "
        "models as here the intervals say how well a line fits them, not what larger models would do."
    )
    figures = {f"{name} power": fit["b"] for name, fit in fits.items()} | {"saved": _saved(result["scaling"])}
    return Found(rows=rows, body=body, figures=figures, data={"scaling": result["scaling"]})


def _saved(found: Mapping[str, Any]) -> str:
    saved = found.get("saved")
    if saved is None:
        return "the losses of the two do not overlap, so no saving is read off"
    return (
        f"to the lowest loss that both reached Muon needs 1/{saved['ratio']:.2f} of AdamW's compute "
        f"(95 %: 1/{saved['low']:.2f} to 1/{saved['high']:.2f})"
    )


if __name__ == "__main__":
    main(
        "depths",
        "Loss against compute C over depths {depths}: Muon C^-{muon power:.3f}, AdamW C^-{adamw power:.3f}; {saved}",
        measure,
        smoke={"model": TINY, "steps": 2, "depths": (1, 2, 3), "tune": 2},
    )
