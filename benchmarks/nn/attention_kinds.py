"""Kinds of attention at nearly equal cache, and length with and without log n: the ablations of article 10907 and 8823.

    python benchmarks/attention_kinds.py                  # both, three seeds, 160 steps a run (90 s): 45 minutes
    python benchmarks/attention_kinds.py --data FILE...   # another text; default: the Python standard library
    python benchmarks/attention_kinds.py --smoke          # a few steps of each, nothing is recorded

Runs that are finished in --out-dir are kept, so that an interrupted benchmark goes on. Each run is `spectrain train`
with one kind of attention; all else is equal, parameters are not (as in the article).
Its table: MHA 2.721, GQA2-128 2.75, GQA1-256 2.72, GQA1-256-PR 2.711, MLA 2.721, GQA2-(192+64)-S2 2.708.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import _record
import torch
from _runs import held_out

from spectrain import train

KINDS = {
    "MHA": {"attention": "mha"},
    "GQA2": {"attention": "gqa", "kv_heads": 2},
    "GQA1, large heads": {"attention": "mqa", "head_dim": 128},
    "GQA1, large heads, partial RoPE": {"attention": "mqa", "head_dim": 128, "rotary_dim": 32},
    "MLA": {"attention": "mla", "latent": 224, "rotary_dim": 32, "head_dim": 96},
    "shared S2": {"attention": "s2", "kv_heads": 2, "head_dim": 128, "rotary_dim": 32},
}
PUBLISHED = {
    "MHA": 2.721,
    "GQA2": 2.75,
    "GQA1, large heads": 2.72,
    "GQA1, large heads, partial RoPE": 2.711,
    "MLA": 2.721,
    "shared S2": 2.708,
}
LENGTHS = (256, 512, 1024, 2048)


def run(flags: dict, folder: Path, args: argparse.Namespace, seed: int) -> train.TrainedRun:
    small = (
        {"depth": 2, "width": 256, "heads": 4, "vocabulary": 300, "eval_tokens": 2048} if args.smoke else {"depth": 4}
    )
    config = train.TrainConfig(
        data=tuple(args.data),
        seed=seed,
        sample_tokens=0,
        spectrum_interval=0,
        autocast="bfloat16",  # fixed, so that no measurement can tell two runs apart
        muon_dtype="bfloat16",
        out_dir=str(folder),
        resume="auto",
        max_steps=3 if args.smoke else args.steps,
        **small,
        **flags,
    )
    return train.load_run(folder if (folder / "summary.json").exists() else train.train(config))


@torch.no_grad()
def loss_at(run: train.TrainedRun, tokens: torch.Tensor, length: int) -> float:
    """Nats of the same tokens of text at every length: the last 128 of each 2048, with ``length`` to read in all."""
    stretches = tokens[: (len(tokens) - 1) // LENGTHS[-1] * LENGTHS[-1] + 1].unfold(0, LENGTHS[-1] + 1, LENGTHS[-1])
    rows = stretches[:16, -length - 1 :]
    logits = run.model(rows[:, :-1])[:, -128:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, -128:].flatten()).item()


def kinds(args: argparse.Namespace, scratch: Path) -> list[dict]:
    rows = []
    for name, flags in KINDS.items():
        losses, numbers = [], 0
        for seed in range(args.seeds):
            made = run(flags, scratch / f"{name}-{seed}".replace(" ", "_"), args, seed)
            losses.append(summary(made)["validation_loss"])
            numbers = made.model.cache_numbers // len(made.model.blocks)
        rows.append({"kind": name, "cache": numbers, "losses": losses, "published": PUBLISHED[name]})
        print(rows[-1], flush=True)
    return rows


def summary(made: train.TrainedRun) -> dict:
    return json.loads((made.source.parent / "summary.json").read_text(encoding="utf-8"))


def lengths(args: argparse.Namespace, scratch: Path) -> list[dict]:
    rows = []
    for log_n in ("off", "fixed", "learned"):
        found = {length: [] for length in LENGTHS}
        for seed in range(args.seeds):
            made = run({"log_n": log_n, "block": 256}, scratch / f"length-{log_n}-{seed}", args, seed)
            tokens = held_out(made)
            for length in LENGTHS:
                found[length].append(loss_at(made, tokens, length))
        rows.append({"log_n": log_n, "losses": found})
        print(rows[-1], flush=True)
    return rows


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} ... {max(values):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=160, help="of a run; equal steps, so that no load of the machine tells"
    )
    parser.add_argument("--name", default="stdlib", help="of the text, in the name of the record")
    parser.add_argument("--out-dir", type=Path, default=Path("runs/attention_kinds"))
    parser.add_argument("--only", choices=("kinds", "lengths"))
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    args.seeds = 1 if args.smoke else args.seeds
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if args.smoke else args.out_dir
        by_kind = kinds(args, runs) if args.only != "lengths" else []
        by_length = lengths(args, runs) if args.only != "kinds" else []
        folder = Path(scratch) if args.smoke else _record.RECORDS
        first = [[r["kind"], r["cache"], spread(r["losses"]), r["published"]] for r in by_kind]
        second = [[r["log_n"], *(spread(r["losses"][n]) for n in LENGTHS)] for r in by_length]
        body = (
            f"{args.seeds} seeds, {args.steps} steps a run on {args.name}; validation loss in nats a token, "
            "mean (range).\n\n"
            + _record.table(
                ["kind", "cached numbers a token and layer", "validation loss", "published, 16B tokens"], first
            )
            + "\n\nTrained at 256; loss on the same held-out tokens, 128 each of up to 16 places, by the length of "
            "text that ends there.\n\n" + _record.table(["log n", *map(str, LENGTHS)], second)
        )
        print(body)
        claim = f"Kinds of attention at nearly equal cache, and length with log n: {args.name}"
        _record.write(
            f"attention_kinds_{args.name}",
            claim=claim,
            body=body,
            data={"kinds": by_kind, "lengths": by_length},
            folder=folder,
        )


if __name__ == "__main__":
    main()
