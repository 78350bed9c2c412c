"""Half of the linear weights of a trained model: loss by method, against plain truncation of the SVD.

    python -m spectrain train --out-dir RUN
    python benchmarks/compress_run.py RUN            # writes a record
    python benchmarks/compress_run.py RUN --smoke    # two methods, no healing

Plain truncation is ``--method svd --calibration-tokens 0``: the SVD of each weight, the same share of each layer.
"""

import argparse
import json
import tempfile
from pathlib import Path

import _record

from spectrain import train

CASES = {
    "plain SVD truncation": {"method": "svd", "calibration_tokens": 0},
    "svd": {"method": "svd"},
    "id": {"method": "id"},
    "cr": {"method": "cr"},
    "cur": {"method": "cur"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--params", type=float, default=0.5)
    parser.add_argument("--finetune-steps", type=int, default=20)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    args = parser.parse_args()
    names = ("plain SVD truncation", "svd") if args.smoke else tuple(CASES)
    steps = 0 if args.smoke else args.finetune_steps
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            out = Path(folder) / name.replace(" ", "_")
            train.compress(args.run, out_dir=out, params=args.params, finetune_steps=steps, **CASES[name])
            rows.append({"name": name, **json.loads((out / "compress.json").read_text(encoding="utf-8"))})
    print(record(rows, steps, args.out))


def record(rows: list[dict], steps: int, out: Path) -> Path:
    """Write the table and what it says."""
    before = rows[0]["loss_before"]
    share = [row["linear_parameters"] / row["linear_parameters_before"] for row in rows]
    body = _record.table(
        ["method", "share of linear weights", "loss", "increase", f"increase after {steps} steps", "time of units"],
        (
            [
                row["name"],
                f"{part:.3f}",
                f"{row['loss_compressed']:.4f}",
                f"{row['loss_compressed'] - before:+.4f}",
                f"{row['loss'] - before:+.4f}",
                f"{sum(unit['time_ratio'] for unit in row['units']) / len(row['units']):.2f}",
            ]
            for row, part in zip(rows, share, strict=True)
        ),
    )
    body += f"\n\nLoss before: {before:.4f}. Time of units: mean ratio of the time of a unit to the time before, 512 "
    body += "positions, on a machine that was not quiet."
    plain = rows[0]["loss_compressed"] - before
    ratio = {row["name"]: (row["loss_compressed"] - before) / plain for row in rows}
    best = min(ratio, key=lambda name: ratio[name])
    claim = (
        f"Half of the linear weights: {best} has {ratio[best]:.2f}, svd for the inputs seen {ratio['svd']:.2f} of the "
    )
    claim += "loss increase of plain SVD truncation"
    named = [row | {"run": Path(row["run"]).name} for row in rows]
    return _record.write("compress_run", claim=claim, body=body, data={"rows": named}, folder=out)


if __name__ == "__main__":
    main()
