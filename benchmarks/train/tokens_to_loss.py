"""How many tokens does Muon need to reach the best tuned AdamW's validation loss?

    python benchmarks/tokens_to_loss.py                       on the standard library's source, depth 4
    python benchmarks/tokens_to_loss.py --data FILE --name x  on other text

On the first seed AdamW is tuned by coordinate descent over learning rate, weight decay and both betas, and Muon over
its learning rate alone; then the best of each on all seeds. Finished runs in --out-dir are kept, so that an interrupted
benchmark goes on.
"""

import argparse
from pathlib import Path

import _record

from spectrain import train
from spectrain.train import TrainConfig
from spectrain.train._studies.compare import ratio_in_words
from spectrain.train.config import default_lr


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--name", default="tokens_to_loss_stdlib")
    parser.add_argument("--out-dir", type=Path, default=Path("runs/tokens_to_loss"))
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--tune", type=int, default=24, help="runs of AdamW on the first seed")
    parser.add_argument("--depth", type=int, default=4)
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
        eval_interval=4 if asked.smoke else 10,
        eval_tokens=2**15,
        save_interval=100,
        spectrum_interval=0,
        sample_tokens=0,
        autocast="bfloat16",
        muon_dtype="bfloat16",
        log_interval=100,
        **small,
    )


def _reached(tokens: float | None) -> str:
    return "not reached" if tokens is None else f"{tokens:.0f}"


def main() -> None:
    asked = arguments()
    config = base(asked)
    grid = {name: [default_lr(name, config.depth)] for name in ("adamw", "muon")}
    tune = 3 if asked.smoke else asked.tune
    result = train.compare(config, grid=grid, seeds=asked.seeds, folder=asked.out_dir, tune=tune)
    rows, ratios = result["rows"], list(result["ratio_by_seed"].values())
    for row in rows:
        print(row)
    print(f"tokens of Muon over tokens of the best AdamW: {ratios}")
    if asked.smoke:
        return
    claim = f"Tokens of Muon to the best tuned AdamW's loss, over AdamW's: {ratio_in_words(result)}"
    body = _record.table(
        ["optimizer", "lr", "decay", "betas", "seed", "final loss", "bits/byte", "tokens", "tokens to AdamW's best",
         "seconds"],
        [
            [row["optimizer"], f"{row['lr']:g}", f"{row.get('weight_decay', config.weight_decay):g}",
             f"{row.get('beta1', config.beta1):g}, {row.get('beta2', config.beta2):g}", row["seed"],
             f"{row['final_loss']:.4f}",
             f"{row['final_bits_per_byte']:.4f}", row["tokens"], _reached(row["tokens_to_target"]),
             f"{row['seconds']:.0f}"]
            for row in rows
        ],
    )  # fmt: skip
    notes = (
        f"\n\nRatio by seed: {', '.join('not reached' if ratio is None else f'{ratio:.3f}' for ratio in ratios)}. No "
        "seed is left out of the mean; where one is not reached, its tokens count as a lower bound. "
        f"AdamW was tuned on the first seed by coordinate descent over learning rate, decay and betas (at most {tune} "
        "runs), Muon over its learning rate; the best of each ran on the other seeds. The target of a seed is the "
        "lowest final validation loss of AdamW; tokens to it are read off Muon's validation curve, linear between "
        "validations 10 steps apart, in a run of the same length. Other settings are the "
        "defaults of `spectrain train`."
    )
    print(
        _record.write(
            asked.name,
            claim=claim,
            body=body + notes,
            data={
                "rows": rows,
                "ratios": ratios,
                "at_least": result["ratio_at_least"],
                "not_reached": result["not_reached"],
            },
        )
    )


if __name__ == "__main__":
    main()
