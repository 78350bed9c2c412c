"""Kinds of attention at nearly equal cache, and length with and without log n: the ablations of article 10907 and 8823.

    python -m benchmarks.nn.attention_kinds                             # 160 steps a run (90 s): 45 minutes
    python -m benchmarks.nn.attention_kinds --data FILE... --text NAME  # another; default: the Python standard library

Runs that are finished in --runs are kept, so that an interrupted benchmark goes on. Each run is `spectrain train`
with one kind of attention; all else is equal, parameters are not (as in the article).
Its table: MHA 2.721, GQA2-128 2.75, GQA1-256 2.72, GQA1-256-PR 2.711, MLA 2.721, GQA2-(192+64)-S2 2.708.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY, finish_run, held_out_tokens, summary
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
MODEL = {"depth": 4}


@torch.no_grad()
def loss_at(made: train.TrainedRun, tokens: torch.Tensor, lengths: Sequence[int], length: int) -> float:
    """Nats of the same tokens of text at every length: the last of each stretch, with ``length`` to read in all.

    A stretch is as long as the greatest length; half as many tokens as the least length count, 128 of 256.
    """
    whole, last = lengths[-1], lengths[0] // 2
    stretches = tokens[: (len(tokens) - 1) // whole * whole + 1].unfold(0, whole + 1, whole)
    rows = stretches[:16, -length - 1 :]
    logits = made.model(rows[:, :-1])[:, -last:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, -last:].flatten()).item()


def kinds(run: Callable[..., Path], seeds: int) -> list[dict]:
    """Losses of each kind, and what it caches."""
    rows = []
    for name, flags in KINDS.items():
        losses, numbers = [], 0
        for seed in range(seeds):
            folder = run(f"{name}-{seed}".replace(" ", "_"), seed=seed, **flags)
            losses.append(summary(folder)["validation_loss"])
            model = train.load_run(folder).model
            numbers = model.cache_numbers // len(model.blocks)
        rows.append({"kind": name, "cache": numbers, "losses": losses, "published": PUBLISHED[name]})
        print(rows[-1], flush=True)
    return rows


def by_length(run: Callable[..., Path], seeds: int, lengths: Sequence[int]) -> list[dict]:
    """Losses by log n and length of text."""
    rows = []
    for log_n in ("off", "fixed", "learned"):
        found: dict[int, list[float]] = {length: [] for length in lengths}
        for seed in range(seeds):
            made = train.load_run(run(f"length-{log_n}-{seed}", seed=seed, log_n=log_n, block=lengths[0]))
            tokens = held_out_tokens(made)
            for length in lengths:
                found[length].append(loss_at(made, tokens, lengths, length))
        rows.append({"log_n": log_n, "losses": found})
        print(rows[-1], flush=True)
    return rows


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} ... {max(values):.4f})"


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    seeds: int = 3,
    steps: int = 160,
    lengths: tuple[int, ...] = LENGTHS,
    only: Literal["kinds", "lengths"] | None = None,
    model: Mapping[str, Any] = MODEL,
) -> Found:
    """``steps`` of each run, equal, so that no load of the machine tells; ``text`` names the data in the record."""

    def run(name: str, **flags: Any) -> Path:
        return finish_run(runs / name, **{**FIXED, "data": data, **model, "max_steps": steps, **flags})

    of_kinds = kinds(run, seeds) if only != "lengths" else []
    of_lengths = by_length(run, seeds, lengths) if only != "kinds" else []
    first = [[r["kind"], r["cache"], spread(r["losses"]), r["published"]] for r in of_kinds]
    second = [[r["log_n"], *(spread(r["losses"][n]) for n in lengths)] for r in of_lengths]
    body = (
        f"{seeds} seeds, {steps} steps a run on {text}; validation loss in nats a token, mean (range).\n\n"
        + _record.table(["kind", "cached numbers a token and layer", "validation loss", "published, 16B tokens"], first)
        + f"\n\nTrained at {lengths[0]}; loss on the same held-out tokens, the last of up to 16 stretches, by the "
        "length of text that ends there.\n\n" + _record.table(["log n", *map(str, lengths)], second)
    )
    means = {row["kind"]: statistics.mean(row["losses"]) for row in of_kinds}
    means |= {f"log n {r['log_n']}, {n}": statistics.mean(r["losses"][n]) for r in of_lengths for n in lengths}
    return Found(rows=of_kinds + of_lengths, body=body, figures=means, part=text)


if __name__ == "__main__":
    main(
        "attention_kinds",
        "Kinds of attention at nearly equal cache, and length with log n: {text}",
        measure,
        smoke={"model": TINY | {"block": 16}, "seeds": 1, "steps": 1, "lengths": (16, 32)},
        threads=None,
    )
