"""What takes Muon further at equal tokens? One change at a time, beside the tuned run; failures are recorded too.

    python -m benchmarks.train.push                       # 640 steps at depth 2, the standard library's source
    python -m benchmarks.train.push --steps 2560 --seeds 0 1 2

The point is where `tokens_to_loss` had tuned Muon for 640 steps. Changes that move the best learning rate (other
updates, other batches) are tried at half and twice the rate as well, and their best counts, which favours them;
--one-rate leaves that out. Finished runs in --runs are kept.
"""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY, file_name, finish_run, summary
from spectrain.train import TrainConfig

POINT: dict[str, Any] = {
    "optimizer": "muon", "lr": 0.016, "embedding_lr": 32.0, "head_lr": 2.0, "weight_decay": 0.1, "final_lr": 0.1,
    "momentum": 0.8, "beta2": 0.98, "warmup": 20,
}  # fmt: skip
RATES = (0.5, 1.0, 2.0)
CHANGES: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "as tuned": ({}, (1.0,)),
    "msign in 3 steps": ({"muon_steps": 3}, (1.0,)),
    "msign in 7 steps": ({"muon_steps": 7}, (1.0,)),
    "NorMuon": ({"optimizer": "normuon"}, RATES),
    "rows of equal norm before msign": ({"optimizer": "muoneq"}, RATES),
    "rates by the spectral scale": ({"scale": "spectral", "lr": 0.016 * 0.2 * 128**0.5}, RATES),
    "cautious decay": ({"decay": "cautious"}, (1.0,)),
    "decay of the largest singular value": ({"decay": "spectral"}, (1.0,)),
    "no decay": ({"weight_decay": 0.0}, (1.0,)),
    "log n, learned": ({"log_n": "learned"}, (1.0,)),
    "all heads with keys of their own": ({"attention": "mha"}, (1.0,)),
    "batches twice as large": ({"batch_size": 32}, (1.0, 2**0.5, 2.0)),
    "batches half as large": ({"batch_size": 8}, (0.5, 2**-0.5, 1.0)),
    "warm-up of 5": ({"warmup": 5}, (1.0,)),
    "last rate of nothing": ({"final_lr": 0.0}, (1.0,)),
}
"""Settings that differ, and the factors on the learning rate that are tried."""
MODEL = {"validation_fraction": 0.02, "eval_interval": 10**6, "save_interval": 10**6, "log_interval": 1000,
         "threads": 1, "compile": True}  # fmt: skip


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    depth: int = 2,
    steps: int = 640,
    seeds: tuple[int, ...] = (0,),
    changes: tuple[str, ...] = tuple(CHANGES),
    one_rate: bool = False,
    model: Mapping[str, Any] = MODEL,
) -> Iterator[Found]:
    """``steps`` of the tuned run; others have as many tokens. A record after every change, of all so far."""
    shared = {**FIXED, "data": data, **model, "depth": depth}
    tokens = steps * TrainConfig(**shared).tokens_per_step
    rows: list[dict[str, Any]] = []
    for name in changes:
        settings, factors = CHANGES[name]
        for factor in factors[len(factors) // 2 :][:1] if one_rate else factors:
            for seed in seeds:
                one = {**shared, **POINT, **settings, "seed": seed, "max_steps": None, "max_tokens": tokens}
                one["lr"] *= factor
                folder = runs / f"d{depth}-{steps}" / f"{file_name(name)}-x{factor:g}-seed{seed}"
                rows.append({"change": name, "factor": factor, "seed": seed, **_run(one, folder)})
        yield _found(rows, f"d{depth}_{steps}")


def _run(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    try:
        found = summary(finish_run(folder, **settings))
    except (FloatingPointError, ValueError) as error:
        return {"loss": float("inf"), "bits_per_byte": float("inf"), "said": str(error)}
    return {"loss": found["validation_loss"], "bits_per_byte": found["bits_per_byte"],
            "tokens_per_second": found["tokens_per_second"]}  # fmt: skip


def _found(rows: list[dict[str, Any]], part: str) -> Found:
    """The best factor of each change, against the tuned run."""
    best: dict[str, tuple[float, float]] = {}
    for row in rows:
        same = [r["loss"] for r in rows if (r["change"], r["factor"]) == (row["change"], row["factor"])]
        best[row["change"]] = min(best.get(row["change"], (float("inf"), 1.0)), (statistics.fmean(same), row["factor"]))
    start = best["as tuned"][0]
    lines = [[name, f"{factor:g}", f"{loss:.4f}", f"{loss - start:+.4f}"] for name, (loss, factor) in best.items()]
    better = sorted((loss - start, name) for name, (loss, _) in best.items() if loss < start)
    said = ", ".join(f"{name} {gain:+.4f}" for gain, name in better) or "nothing"
    body = (
        _record.table(["change", "rate x", "loss", "against the tuned run"], lines)
        + f"\n\nThe tuned run: {', '.join(f'{key} {value}' for key, value in POINT.items())}. Loss is that of all "
        "held-out text, in nats a token; means over the seeds."
    )
    return Found(rows=rows, body=body, figures={"said": said}, part=part)


if __name__ == "__main__":
    main(
        "push",
        "What lowers the loss of a tuned Muon after {steps} steps at depth {depth}, one change at a time: {said}",
        measure,
        smoke={"model": TINY, "steps": 2, "depth": 1, "changes": ("as tuned", "cautious decay", "NorMuon")},
    )
