"""``spectrain compare``: tokens to the same loss under several optimizers."""

import argparse
from pathlib import Path
from typing import Any

from spectrain import report, train
from spectrain.cli._flags import run_config
from spectrain.cli._parse import Parser
from spectrain.train.config import EVERY_TOKEN, TrainConfig, default_lr
from spectrain.train.internal import OPTIMIZERS, SHORT, in_words, named_folder

RATES = [5e-4, 1e-3, 2e-3, 4e-3]
DESCRIPTION = """Train the same model on the same batches under several optimizers and learning rates, and count the
tokens each needs to reach the best AdamW validation loss.

Besides every flag of train: --optimizers NAME... (muon adamw), --lr RATE... (5e-4 1e-3 2e-3 4e-3), --seeds N... (0),
--tune N: on the first seed tune each optimizer by coordinate descent in at most N runs (rates of matrices, embedding
and head, warm-up, decay, last rate, betas or momentum); then two tables on all seeds: nothing but the update of the
matrices different, and each at its best.
--settings NAME...: tune only these of them (lr embedding_lr head_lr warmup weight_decay final_lr ...).
--depths D...: models of several depths instead, each on tokens in proportion to its weights, each optimizer tuned at
each depth in --tune runs over --settings (lr), and loss against compute.
Run it again with the same --out-dir to go on where it was stopped."""
_HEAD = f"{'optimizer':12}{'lr':>10}{'seed':>6}{'final loss':>12}{'bits/byte':>11}{'tokens to target':>18}"
_TITLES = {
    "swept": "",
    "controlled": "controlled: what moves the matrices is the only difference",
    "best": "each at its best",
}


def main(argv: list[str]) -> int:
    """Train the grid, print the table, write compare.json and the report."""
    parser = Parser(prog="spectrain compare", add_help=False, allow_abbrev=False)
    parser.add_argument("--optimizers", nargs="+", default=["muon", "adamw"], choices=[*OPTIMIZERS])
    parser.add_argument("--lr", nargs="+", type=float)
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--settings", nargs="+", choices=list(SHORT))
    parser.add_argument("--depths", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out-dir", type=Path)
    known, rest = parser.parse_known_args(argv)
    base = run_config(TrainConfig, rest, verb="compare", description=DESCRIPTION)
    for flag, given, instead in (
        ("--seed", base.seed != 0, "--seeds"),
        ("--optimizer", base.optimizer != "muon", "--optimizers"),
        (
            "--eval-tokens",
            base.eval_tokens not in (TrainConfig.eval_tokens, EVERY_TOKEN),
            "--final-eval-tokens, since every validation reads what the last one does",
        ),
        ("--resume", base.resume != "never", "the same --out-dir, which goes on by itself"),
    ):
        if given or any(word.partition("=")[0] == flag for word in rest):
            raise ValueError(f"compare does not take {flag}: give {instead}.")
    if known.lr and (known.tune or known.depths):
        raise ValueError(f"{'--tune' if known.tune else '--depths'} decides the learning rates: leave --lr out.")
    if known.settings and not known.tune:
        raise ValueError("--settings says what --tune tunes: give --tune N.")
    rates = {o: [default_lr(o, base.depth)] if known.tune else known.lr or RATES for o in known.optimizers}
    with named_folder(known.out_dir, "compare") as folder:
        return _run(base, known, rates, folder)


def _run(base: TrainConfig, known: argparse.Namespace, rates: dict[str, list[float]], folder: Path) -> int:
    shared = {"seeds": known.seeds, "folder": folder}
    try:
        if known.depths:
            shared["settings"] = known.settings or ["lr"]
            result = train.compare_depths(
                base, depths=known.depths, optimizers=known.optimizers, tune=known.tune, **shared
            )
        else:
            result = train.compare(base, grid=rates, tune=known.tune, settings=known.settings, **shared)
    except train.runs.StopRequest as stop:
        print(f"{stop}. To go on, give the same compare command with --out-dir {folder}")
        return 0
    print(depths_table(result) if known.depths else table(result))
    print(f"report: {report.write([folder], out=folder / 'report.html')}")
    return 0


def table(result: dict[str, Any]) -> str:
    """The comparison as text: its tables, and the settings that were tuned."""
    rows = {row["run"]: row for row in result["rows"]}
    lines: list[str] = []
    for name, found in result["tables"].items():
        lines += [_TITLES[name]] if _TITLES[name] else []
        lines.append(_HEAD)
        lines += [_line(rows[run]) for run in sorted(found["runs"], key=lambda run: _order(rows[run]))]
        for other, ratio in found["against"].items():
            words = in_words(ratio)
            lines.append(f"tokens of {other} to AdamW's loss after {result['horizon']} steps, as a share: {words}")
    return "\n".join(lines + [_ended(name, found) for name, found in result.get("tuned", {}).items()])


def _order(row: dict[str, Any]) -> tuple[int, str, float]:
    return row["seed"], row["optimizer"], row["lr"]


def _line(row: dict[str, Any]) -> str:
    tokens = row["tokens_to_target"]
    reached = "diverged" if "diverged" in row else "not reached" if tokens is None else f"{tokens:,.0f}"
    return (
        f"{row['optimizer']:12}{row['lr']:10.1e}{row['seed']:6}{row['final_loss']:12.4f}"
        f"{row['final_bits_per_byte']:11.4f}{reached:>18}"
    )


def _ended(name: str, found: dict[str, Any]) -> str:
    """Where tuning ended, and what stands at the edge of what was tried."""
    point = ", ".join(f"{key} {value:g}" for key, value in found["point"].items())
    edge = "".join(
        f"; {words}: {', '.join(found[key])}"
        for key, words in (("edge", "at the end of its values"), ("open", "a neighbour not tried"))
        if found[key]
    )
    return f"{name} in {found['runs']} runs: {point}{edge}"


def depths_table(result: dict[str, Any]) -> str:
    """The comparison of depths as text."""
    lines = [f"{'optimizer':10}{'depth':>6}{'seed':>6}{'weights':>12}{'tokens':>12}{'PFLOP':>9}{'final loss':>12}"]
    for row in sorted(result["rows"], key=lambda row: (row["optimizer"], row["depth"], row["seed"])):
        lines.append(
            f"{row['optimizer']:10}{row['depth']:6}{row['seed']:6}{row['weights']:12,}{row['tokens']:12,}"
            f"{row['flops'] / 1e15:9.3g}{row['final_loss']:12.4f}"
        )
    for optimizer, fit in result["scaling"]["fits"].items():
        lines.append(
            f"{optimizer}: loss falls as C^-{fit['b']:.4f} (95 %: +- {fit['b_half']:.4f}), {fit['points']} runs"
        )
    if saved := result["scaling"].get("saved"):
        lines.append(
            f"Muon needs 1/{saved['ratio']:.2f} of AdamW's {saved['at_flops']:.2g} FLOP to the lowest loss that both "
            f"reached (95 %: 1/{saved['low']:.2f} to 1/{saved['high']:.2f})"
        )
    return "\n".join(lines)
