"""What learning adds to BM25 when functions are searched by their docstrings: three seeds, whole modules held out."""

import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import few_pairs, finish_run, summary
from spectrain.train._jobs.embed_config import EmbedConfig

KEYS = ("mrr", "recall_10")


def measure(
    *,
    runs: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 80,
    source: Callable[[Path], tuple[str, ...]] | None = None,
) -> Found:
    """One run a seed, on the standard library or on pairs that ``source`` writes."""
    model = {"data": source(runs / "source"), "batch_size": 4, "width": 32} if source else {}
    quiet = {"spectrum_interval": 0, "eval_interval": 1000}
    rows = []
    for seed in seeds:
        folder = finish_run(
            runs / f"{seed}-{steps}", EmbedConfig, **{**quiet, **model, "seed": seed, "max_steps": steps}
        )
        rows.append({"seed": seed, **summary(folder)})
    cells = [
        [row["seed"], *(f"{row[f'{key}{kind}']:.3f}" for key in KEYS for kind in ("_bm25", "", "_combined"))]
        for row in rows
    ]
    gains = {key: [row[f"{key}_combined"] - row[f"{key}_bm25"] for row in rows] for key in KEYS}
    head = ["seed", "MRR BM25", "MRR learned", "MRR both", "recall@10 BM25", "recall@10 learned", "recall@10 both"]
    words = "; ".join(f"{key}: {statistics.fmean(v):+.3f} (least {min(v):+.3f})" for key, v in gains.items())
    body = f"{_record.table(head, cells)}\n\nGain of both over BM25 alone: {words}. Asked: +0.03 in each."
    return Found(rows=rows, body=body, figures={key: statistics.fmean(v) for key, v in gains.items()})


if __name__ == "__main__":
    main(
        "embed_gain",
        "Search by docstring: the learned score adds {mrr:+.3f} to the MRR of BM25 and {recall_10:+.3f} to its recall "
        "of ten",
        measure,
        smoke={"seeds": (0,), "steps": 1, "source": few_pairs},
        threads=None,
    )
