"""``spectrain compare``: tokens to the same loss under several optimizers."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from spectrain import report, train
from spectrain.cli._flags import run_config
from spectrain.train.config import TrainConfig, default_lr

RATES = [5e-4, 1e-3, 2e-3, 4e-3]
DESCRIPTION = """Train the same model on the same batches under several optimizers and learning rates, and count the
tokens each needs to reach the best AdamW validation loss.

Besides every flag of train: --optimizers NAME... (muon adamw), --lr RATE... (5e-4 1e-3 2e-3 4e-3), --seeds N... (0),
--tune N: on the first seed tune AdamW's learning rate, weight decay and betas by coordinate descent in at most N runs
each, and Muon's learning rate; then run the best of each on all seeds.
Run it again with the same --out-dir to go on where it was stopped."""


def main(argv: list[str]) -> int:
    """Train the grid, print the table, write compare.json and the report."""
    parser = argparse.ArgumentParser(prog="spectrain compare", add_help=False, allow_abbrev=False)
    parser.add_argument("--optimizers", nargs="+", default=["muon", "adamw"], choices=["muon", "adamw"])
    parser.add_argument("--lr", nargs="+", type=float)
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out-dir", type=Path, default=Path(f"runs/{datetime.now():%Y-%m-%d_%H%M%S}-compare"))
    known, rest = parser.parse_known_args(argv)
    base = run_config(TrainConfig, rest, verb="compare", description=DESCRIPTION)
    for flag, given, instead in (
        ("--seed", base.seed != 0, "--seeds"),
        ("--optimizer", base.optimizer != "muon", "--optimizers"),
        ("--resume", base.resume != "never", "the same --out-dir, which goes on by itself"),
    ):
        if given:
            raise ValueError(f"compare does not take {flag}: give {instead}.")
    if known.tune and known.lr:
        raise ValueError("--tune finds the learning rates: leave --lr out.")
    rates = {o: [default_lr(o, base.depth)] if known.tune else known.lr or RATES for o in known.optimizers}
    try:
        result = train.compare(base, grid=rates, seeds=known.seeds, folder=known.out_dir, tune=known.tune)
    except train.StopRequest as stop:
        print(f"{stop}. To go on, give the same compare command with --out-dir {known.out_dir}")
        return 0
    print(table(result))
    print(f"report: {report.write([known.out_dir], out=known.out_dir / 'report.html')}")
    return 0


def table(result: dict[str, Any]) -> str:
    """The comparison as text."""
    lines = [f"{'optimizer':10}{'lr':>10}{'seed':>6}{'final loss':>12}{'bits/byte':>11}{'tokens to target':>18}"]
    for row in sorted(result["rows"], key=lambda row: (row["seed"], row["optimizer"], row["lr"])):
        reached = f"{row['tokens_to_target']:,.0f}" if row["tokens_to_target"] else "not reached"
        reached = "diverged" if "diverged" in row else reached
        lines.append(
            f"{row['optimizer']:10}{row['lr']:10.1e}{row['seed']:6}{row['final_loss']:12.4f}"
            f"{row['final_bits_per_byte']:11.4f}{reached:>18}"
        )
    if result["ratio"] is not None:
        seeds = len(result["ratio_by_seed"])
        spread = f", spread {result['ratio_spread']:.3f} over {seeds} seeds" if seeds > 1 else ", one seed"
        lines.append(f"tokens to the best AdamW loss, as a share of AdamW's: {result['ratio']:.3f}{spread}")
    return "\n".join(lines)
