"""How many tokens does Muon need to reach the best tuned AdamW's validation loss?

    python benchmarks/tokens_to_loss.py                       on the standard library's source, depth 4
    python benchmarks/tokens_to_loss.py --data FILE --name x  on other text

First every learning rate on the first seed, for AdamW and for Muon; then the best of each on all seeds.
Runs that are finished in --out-dir are kept, so that an interrupted benchmark goes on.
"""

import argparse
import statistics
from pathlib import Path

import _record

from spectrain import train
from spectrain.train import TrainConfig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--name", default="tokens_to_loss_stdlib")
    parser.add_argument("--out-dir", type=Path, default=Path("runs/tokens_to_loss"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--adamw-lr", nargs="+", type=float, default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--muon-lr", nargs="+", type=float, default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help="a minute at most, to see that it runs; writes no record")
    return parser.parse_args()


def base(asked: argparse.Namespace) -> TrainConfig:
    """What all runs share. Precisions are fixed, so that no measurement can tell two runs apart."""
    small = {"width": 32, "heads": 2, "vocabulary": 300, "block": 16, "batch_size": 4} if asked.smoke else {}
    return TrainConfig(
        data=tuple(asked.data),
        depth=1 if asked.smoke else asked.depth,
        max_steps=8 if asked.smoke else asked.steps,
        eval_interval=4 if asked.smoke else 20,
        save_interval=100,
        spectrum_interval=0,
        sample_tokens=0,
        autocast="bfloat16",
        muon_dtype="bfloat16",
        log_interval=100,
        **small,
    )


def best(result: dict, optimizer: str) -> float:
    """The learning rate with the lowest final loss."""
    rows = [row for row in result["rows"] if row["optimizer"] == optimizer]
    return min(rows, key=lambda row: row["final_loss"])["lr"]


def main() -> None:
    asked = arguments()
    config, first, rest = base(asked), asked.seeds[:1], asked.seeds[1:]
    grid = {"adamw": asked.adamw_lr, "muon": asked.muon_lr}
    swept = train.compare(config, grid=grid, seeds=first, folder=asked.out_dir)
    chosen = {name: [best(swept, name)] for name in grid}
    results = [swept, *(train.compare(config, grid=chosen, seeds=[seed], folder=asked.out_dir) for seed in rest)]
    ratios = [result["ratio"] for result in results]
    rows = [row for result in results for row in result["rows"]]
    for row in rows:
        print(row)
    print(f"tokens of Muon over tokens of the best AdamW: {ratios}")
    if asked.smoke:
        return
    reached = [ratio for ratio in ratios if ratio is not None]
    spread = f"{min(reached):.3f} to {max(reached):.3f}" if reached else "never reached"
    claim = f"Muon reaches the best tuned AdamW's loss with {statistics.fmean(reached or [1.0]):.3f} of its tokens"
    body = _record.table(
        ["optimizer", "lr", "seed", "final loss", "bits/byte", "tokens", "tokens to AdamW's best", "seconds"],
        [
            [row["optimizer"], f"{row['lr']:g}", row["seed"], f"{row['final_loss']:.4f}",
             f"{row['final_bits_per_byte']:.4f}", row["tokens"], round(row["tokens_to_target"] or -1),
             f"{row['seconds']:.0f}"]
            for row in rows
        ],
    )  # fmt: skip
    notes = (
        f"\n\nRatio by seed: {', '.join(f'{ratio:.3f}' if ratio else 'not reached' for ratio in ratios)} ({spread}). "
        "Learning rates were swept on the first seed; the best of each optimizer ran on the others. The target of a "
        "seed is the lowest final validation loss of AdamW; tokens to it are read off Muon's validation curve, linear "
        "between validations 20 steps apart, in a run of the same length (-1: not reached). Other settings are the "
        "defaults of `spectrain train`."
    )
    print(_record.write(asked.name, claim=claim, body=body + notes, data={"rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
