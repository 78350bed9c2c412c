"""Loss against training compute for Muon and AdamW over models of several depths: the picture of a scaling law.

    python benchmarks/depths.py                     depths 2, 3, 4 and 6 on the standard library's source
    python benchmarks/depths.py --data FILE         other text

Each model gets tokens in proportion to its weights. Learning rates are the defaults of `spectrain train`, which follow
depth and optimizer. Finished runs in --out-dir are kept, so that an interrupted benchmark goes on.
"""

import argparse
from pathlib import Path

import _record

from spectrain import report, train
from spectrain.cli._compare import depths_table
from spectrain.train import TrainConfig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--out-dir", type=Path, default=Path("runs/depths"))
    parser.add_argument("--steps", type=int, default=80, help="at depth 4")
    parser.add_argument("--depths", nargs="+", type=int, default=[2, 3, 4, 6])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--smoke", action="store_true", help="a minute at most, to see that it runs; writes no record")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    small = {"width": 32, "heads": 2, "vocabulary": 300, "block": 16, "batch_size": 4} if asked.smoke else {}
    base = TrainConfig(
        data=tuple(asked.data),
        max_steps=4 if asked.smoke else asked.steps,
        threads=1,
        spectrum_interval=0,
        sample_tokens=0,
        autocast="bfloat16",
        muon_dtype="bfloat16",
        **small,
    )
    depths = [1, 2, 3] if asked.smoke else asked.depths
    result = train.compare_depths(
        base, depths=depths, optimizers=["muon", "adamw"], seeds=asked.seeds, folder=asked.out_dir
    )
    report.write([asked.out_dir], out=asked.out_dir / "report.html")
    print(depths_table(result))
    if asked.smoke:
        return
    fits = result["scaling"]["fits"]
    powers = ", ".join(f"{name} C^-{fit['b']:.3f} (95 %: +- {fit['b_half']:.3f})" for name, fit in fits.items())
    saved = result["scaling"]["saved"]
    claim = (
        f"Loss against compute over depths {depths}: {powers}; Muon needs 1/{saved['ratio']:.2f} of AdamW's compute "
        f"(95 %: 1/{saved['low']:.2f} to 1/{saved['high']:.2f})"
    )
    body = _record.table(
        ["optimizer", "depth", "seed", "weights", "tokens", "PFLOP", "final loss"],
        [
            [row["optimizer"], row["depth"], row["seed"], f"{row['weights']:,}", f"{row['tokens']:,}",
             f"{row['flops'] / 1e15:.3g}", f"{row['final_loss']:.4f}"]
            for row in sorted(result["rows"], key=lambda row: (row["optimizer"], row["depth"], row["seed"]))
        ],
    )  # fmt: skip
    notes = (
        f"\n\n{asked.steps} steps at depth 4, other depths in proportion to their weights; width is 64 x depth, and "
        "all other settings are the defaults of `spectrain train`: learning rates fall as 1 / depth from a sweep at "
        "depth 4, and are not tuned at each depth; AdamW's runs with few steps end in or just after the warm-up of 20, "
        "and may spike there. So this says what the defaults do, in short runs. Loss is that of all held-out text, in "
        "nats a token. The fit is log loss = a - b log C, C = (6 weights + 6 depth block width) tokens. With as many "
        "models as here the intervals say how well a line fits them, not what larger models would do."
    )
    print(_record.write("depths", claim=claim, body=body + notes, data=result))


if __name__ == "__main__":
    main()
