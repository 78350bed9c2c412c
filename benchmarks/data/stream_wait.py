"""A stream never starves the default job: what part of a run waits for batches.

    python benchmarks/stream_wait.py            # writes benchmarks/records/<date>_stream_wait.{md,json}
    python benchmarks/stream_wait.py --smoke    # small

The default job of ``spectrain train`` (standard library, depth 4) runs five steps with the text as it runs, with packed
documents, and with a mixture of two sources; ``data_share`` of each run's summary is the part of it that waited. Beside
it: milliseconds a batch of the default size from each kind of stream, and from a text of 10^12 tokens (one number,
repeated without memory), whose order is computed.
"""

import argparse
import json
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import _record
import numpy as np

from spectrain import data, train
from spectrain.train.config import TrainConfig


def runs(steps: int, folder: Path) -> list[list[str]]:
    library = Path(sysconfig.get_path("stdlib"))
    two = (str(library / "asyncio"), str(library / "email"))
    kinds = {
        "as it runs (the default)": {},
        "packed documents": {"packing": "documents"},
        "mixture of two folders, 3 to 1": {"data": two, "data_weights": (3.0, 1.0)},
    }
    rows = []
    for name, options in kinds.items():
        config = TrainConfig(
            max_steps=steps,
            out_dir=str(folder / name.split()[0]),
            sample_tokens=0,
            validation_fraction=0.005,
            **options,
        )
        summary = json.loads((train.train(config) / "summary.json").read_text(encoding="utf-8"))
        lines = (Path(config.out_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps_ = [row for row in map(json.loads, lines) if row["kind"] == "step"]
        share = sum(r["data_seconds"] for r in steps_) / sum(r["step_seconds"] for r in steps_)
        wait, step = (1e3 * statistics.median(r[key] for r in steps_) for key in ("data_seconds", "step_seconds"))
        rows.append([name, f"{100 * share:.2g} %", f"{wait:.2f}", f"{step:.0f}", f"{summary['bytes_per_second']:,.0f}"])
    return rows


def batches(repeats: int) -> list[list[str]]:
    tokens = np.random.default_rng(0).integers(1, 4096, 3_000_000).astype(np.uint16)
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
    rows = []
    for name, stream in streams.items():
        stream.batch(0)
        times = []
        for t in range(repeats):
            began = time.perf_counter()
            stream.batch(10**6 + 997 * t % 1000)
            times.append(time.perf_counter() - began)
        rows.append([name, f"{1e3 * statistics.median(times):.3f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        waits, costs = runs(2 if smoke else 5, folder), batches(5 if smoke else 200)
    header = ["stream", "part of the steps that waited", "ms waited a step", "ms a step", "bytes a second"]
    body = (
        f"{_record.table(header, waits)}\n\nBytes a second of text over the whole run, validations included; "
        "validation_fraction 0.005. Batches of 16 x 256 tokens alone:\n\n"
        f"{_record.table(['stream', 'ms a batch'], costs)}"
    )
    options = {"folder": Path(tempfile.gettempdir()) / "records"} if smoke else {}
    print(_record.write("stream_wait", claim="A stream never starves the default job", body=body,
                        data={"waits": waits, "batches": costs}, **options).read_text(encoding="utf-8"))  # fmt: skip


if __name__ == "__main__":
    main()
