"""Half of the linear weights of a trained model: loss by method, against plain truncation of the SVD.

    python -m benchmarks.train.compress_run              # trains the default model first
    python -m benchmarks.train.compress_run --run RUN    # a run folder of `spectrain train`

Plain truncation is ``--method svd --calibration-tokens 0``: the SVD of each weight, the same share of each layer.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY, finish_run
from spectrain import train

MODEL: dict[str, Any] = {}
CASES = {
    "plain SVD truncation": {"method": "svd", "calibration_tokens": 0},
    "svd": {"method": "svd"},
    "id": {"method": "id"},
    "cr": {"method": "cr"},
    "cur": {"method": "cur"},
}


def measure(
    *,
    runs: Path,
    run: Path | None = None,
    model: Mapping[str, Any] = MODEL,
    methods: tuple[str, ...] = tuple(CASES),
    params: float = 0.5,
    finetune_steps: int = 20,
    calibration_tokens: int | None = None,
) -> Found:
    """Keep the share ``params`` of the linear weights by each method, the first the yardstick, and heal it."""
    source, rows = run or finish_run(runs / "model", **model), []
    given = {} if calibration_tokens is None else {"calibration_tokens": calibration_tokens}
    with tempfile.TemporaryDirectory() as folder:
        for name in methods:
            out = Path(folder) / name.replace(" ", "_")
            options = {**given, **CASES[name]}
            train.compress(source, out_dir=out, params=params, finetune_steps=finetune_steps, **options)
            found = json.loads((out / "compress.json").read_text(encoding="utf-8"))
            rows.append({"name": name, **found, "run": Path(found["run"]).name})
    return Found(rows=rows, body=report(rows, finetune_steps), figures=figures(rows))


def figures(rows: list[dict]) -> dict[str, Any]:
    """The method that loses least, and what it loses of what the first one does."""
    lost = [row["loss_compressed"] - row["loss_before"] for row in rows]
    best = min(range(len(rows)), key=lambda i: lost[i])
    return {"best": rows[best]["name"], "ratio": lost[best] / lost[0], "plain": rows[0]["name"]}


def report(rows: list[dict], steps: int) -> str:
    """The table."""
    before = rows[0]["loss_before"]
    body = _record.table(
        ["method", "share of linear weights", "loss", "increase", f"increase after {steps} steps", "time of units"],
        (
            [
                row["name"],
                f"{row['linear_parameters'] / row['linear_parameters_before']:.3f}",
                f"{row['loss_compressed']:.4f}",
                f"{row['loss_compressed'] - before:+.4f}",
                f"{row['loss'] - before:+.4f}",
                f"{sum(unit['time_ratio'] for unit in row['units']) / len(row['units']):.2f}",
            ]
            for row in rows
        ),
    )
    body += f"\n\nLoss before: {before:.4f}. Time of units: mean ratio of the time of a unit to the time before, 512 "
    return body + "positions."


if __name__ == "__main__":
    main(
        "compress_run",
        "A share of {params} of the linear weights: {best} has {ratio:.2f} of the loss increase of {plain}",
        measure,
        smoke={"model": TINY, "methods": tuple(CASES)[:2], "finetune_steps": 1, "calibration_tokens": 64},
        threads=None,
    )
