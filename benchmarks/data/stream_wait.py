"""A stream never starves the default job: what part of a run waits for batches.

    python -m benchmarks.data.stream_wait

The default job of ``spectrain train`` (standard library, depth 4) runs five steps with the text as it runs, with packed
documents, and with a mixture of two sources; ``data_share`` of each run's summary is the part of it that waited. Beside
it: milliseconds a batch of the default size from each kind of stream, and from a text of 10^12 tokens (one number,
repeated without memory), whose order is computed.
"""

import itertools
import json
import statistics
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from benchmarks._runs import TINY, finish_run, summary
from spectrain import data

SOURCES = tuple(str(Path(sysconfig.get_path("stdlib"), name)) for name in ("asyncio", "email"))
MODEL = {"max_steps": 5, "validation_fraction": 0.005}


def wait_shares(folder: Path, sources: tuple[str, str], model: Mapping[str, Any]) -> list[dict]:
    """One row for each way to read: the part of the steps that waited, and what a step takes."""
    kinds = {
        "as it runs (the default)": {},
        "packed documents": {"packing": "documents"},
        "mixture of two sources, 3 to 1": {"data": sources, "data_weights": (3.0, 1.0)},
    }
    rows = []
    for name, options in kinds.items():
        made = finish_run(folder / name.split()[0], **{"sample_tokens": 0, **model, **options})
        lines = (made / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [row for row in map(json.loads, lines) if row["kind"] == "step"]
        row = {"stream": name, "share": sum(r["data_seconds"] for r in steps) / sum(r["step_seconds"] for r in steps)}
        for key, words in (("data_seconds", "ms waited a step"), ("step_seconds", "ms a step")):
            row[words] = 1e3 * statistics.median(r[key] for r in steps)
        rows.append(row | {"bytes a second": summary(made)["bytes_per_second"]})
    return rows


def batches(rounds: int, size: int) -> list[dict]:
    """Milliseconds of a batch from each kind of stream, of ``size`` tokens but for the last."""
    tokens = np.random.default_rng(0).integers(1, 4096, size).astype(np.uint16)
    tokens[::700] = 0
    sizes = {"block": 256, "batch": 16, "seed": 0}
    plain = data.TokenStream(tokens, **sizes)
    streams = {
        "TokenStream": plain,
        "PackedStream": data.PackedStream(tokens, end_of_text=0, **sizes),
        "Mixture of 2": data.Mixture([plain, plain], weights=(3, 1), seed=0),
        "Mixture of 8": data.Mixture([plain] * 8, weights=range(1, 9), seed=0),
        "TokenStream, 10^12 tokens": data.TokenStream(np.broadcast_to(np.uint16(7), 10**12), **sizes),
    }
    turn = itertools.count()
    calls = {name: lambda s=stream: s.batch(10**6 + 997 * next(turn) % 1000) for name, stream in streams.items()}
    times = alternate(calls, rounds=rounds)
    return [{"stream": name, "ms a batch": 1e3 * times.median(name)} for name in times]


def measure(
    *,
    runs: Path,
    sources: tuple[str, str] = SOURCES,
    model: Mapping[str, Any] = MODEL,
    rounds: int = 200,
    size: int = 3_000_000,
) -> Found:
    """Runs of the ``model``, one of a mixture of ``sources``, and batches of a text of ``size`` tokens, one by one."""
    waits, costs = wait_shares(runs, sources, model), batches(rounds, size)
    body = (
        f"{_record.show(waits)}\n\nShare: the part of the steps that waited. Bytes a second of text over the whole "
        f"run, validations included. Batches of 16 x 256 tokens alone:\n\n{_record.show(costs)}"
    )
    figures = {"most": max(row["share"] for row in waits)}
    return Found(rows=waits, body=body, figures=figures, data={"batches": costs})


if __name__ == "__main__":
    main(
        "stream_wait",
        "A stream never starves the default job: at most {most:.2%} of the steps wait for batches",
        measure,
        smoke={"sources": TINY["data"][:2], "model": TINY, "rounds": 2, "size": 20_000},
        threads=None,
    )
