"""What `spectrain plan` says of runs on processors, beside what they do: memory of a rank, and seconds of a step.

For each number of ranks the machine is measured by so many ranks at once (`spectrain calibrate`), then runs are planned
and made. Memory is anonymous memory beyond that of a run of the same kind whose model is almost nothing.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._program import main
from benchmarks._record import Found, table
from benchmarks._runs import TINY
from spectrain.train import TrainConfig
from spectrain.train.planning import Cluster, plan_run, read_cluster

CASES = (
    (1, {}), (1, {"recompute": True}), (2, {"mesh": "1x2"}), (2, {"mesh": "2x1"}),
    (2, {"mesh": "1x1", "tensor_parallel": 2}), (4, {"mesh": "1x4"}), (4, {"mesh": "2x2"}), (4, {"mesh": "1x4", "recompute": True}),
)  # fmt: skip
"""Ranks, and what else is asked for."""
ALMOST_NOTHING = {"depth": 1, "width": 32, "heads": 2, "kv_heads": 2, "hidden": 64, "block": 16}


def measure(
    *,
    depth: int = 2,
    width: int = 384,
    block: int = 128,
    batch: int = 8,
    steps: int = 8,
    cases: int = len(CASES),
    runs: Path,
) -> Iterator[Found]:
    size = {"depth": depth, "width": width, "heads": max(2, width // 64), "kv_heads": 2, "block": block}
    rows, clusters, floors = [], {}, {}
    for ranks, asked in CASES[:cases]:
        folder = runs / f"{ranks}-{'-'.join(f'{k}-{v}' for k, v in asked.items()) or 'plain'}"
        folder.mkdir(parents=True, exist_ok=True)
        if ranks not in clusters:
            clusters[ranks] = calibrated(ranks, runs / f"machine{ranks}.json")
            floors[ranks] = watched(
                ranks, runs / f"floor{ranks}", steps, {**ALMOST_NOTHING, **mesh_of(ranks), "batch": batch}
            )
        config = made(steps=steps, **size, **asked, batch=batch)
        plan = plan_run(config, clusters[ranks])
        seen = watched(ranks, folder, steps, {**size, **asked, "batch": batch})
        rows += compared(
            f"{ranks} ranks {' '.join(f'{k}={v}' for k, v in asked.items())}".strip(), plan, seen, floors[ranks]
        )
        errors = {kind: [row["planned"] / row["measured"] for row in rows if row["kind"] == kind] for kind in KINDS}
        worst = {f"worst_{kind}": max((max(r, 1 / r) for r in found), default=1.0) for kind, found in errors.items()}
        middle = {f"median_{kind}": statistics.median(found) for kind, found in errors.items() if found}
        lines = [[row["run"], row["kind"], f"{row['planned']:.3g}", f"{row['measured']:.3g}",
                  f"{row['planned'] / row['measured']:.2f}"] for row in rows]  # fmt: skip
        yield Found(
            rows=rows,
            body=table(["run", "what", "planned", "measured", "planned / measured"], lines),
            figures={**worst, **middle},
            data={"machines": {str(n): c.as_dict() for n, c in clusters.items()}},
        )


KINDS = ("memory", "step", "gradient", "optimizer")
"""MB beyond a model of almost nothing; ms of a step, of loss and gradient with what travels for them, of the update."""


def compared(run: str, plan: Any, seen: dict[str, float], floor: dict[str, float]) -> list[dict[str, Any]]:
    said, hidden = plan.seconds, plan.hidden
    update = sum(said.get(name, 0.0) for name in ("Muon's exchange", "msign", "other updates"))
    planned = {"memory": plan.bytes / 1e6, "step": 1e3 * plan.step_seconds, "optimizer": 1e3 * update,
               "gradient": 1e3 * (sum(said.values()) - update - said["agreement"] - hidden)}  # fmt: skip
    measured = {**seen, "memory": max(0.01, (seen["memory"] - floor["memory"]) * 2**20 / 1e6)}
    return [{"run": run, "kind": kind, "planned": planned[kind], "measured": measured[kind]} for kind in KINDS]


def mesh_of(ranks: int) -> dict[str, Any]:
    return {} if ranks == 1 else {"mesh": f"1x{ranks}"}


def made(*, batch: int, steps: int, **asked: Any) -> TrainConfig:
    return TrainConfig(**{**fixed(steps), **asked, "batch_size": batch})


def fixed(steps: int) -> dict[str, Any]:
    return {**TINY, "max_steps": steps, "autocast": "off", "muon_dtype": "float32", "threads": 1, "eval_tokens": 16,
            "final_eval_tokens": 16, "eval_interval": 1000, "save_interval": 1000, "warmup": 2}  # fmt: skip


def calibrated(ranks: int, out: Path) -> Cluster:
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        launch(ranks, "spectrain", ["calibrate", "--out", str(out), "--threads", "1"])
    return read_cluster(str(out))


def watched(ranks: int, folder: Path, steps: int, asked: dict[str, Any]) -> dict[str, float]:
    """A run that is finished, or was: the most memory of its ranks in MiB, and medians of its steps in ms."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    if not (run / "summary.json").exists():
        config = made(steps=steps, **asked)
        flags = [word for name in sorted({*fixed(steps), *asked} - {"batch"} | {"batch_size"})
                 for word in words(name, getattr(config, name))]  # fmt: skip
        launch(
            ranks, "benchmarks.train._rank", [str(folder), "train", *flags, "--out-dir", str(run), "--resume", "auto"]
        )
    memory = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("rank*.json")]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    taken = [line for line in lines if line["kind"] == "step"][min(2, steps - 1) :]
    step, update = (
        1e3 * statistics.median(line[name] for line in taken) for name in ("step_seconds", "optimizer_seconds")
    )
    return {"memory": max(one["most"] - one["before"] for one in memory), "step": step, "optimizer": update,
            "gradient": step - update}  # fmt: skip


def words(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]


def launch(ranks: int, module: str, argv: list[str]) -> None:
    """Start so many ranks, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    place = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, *argv], stdout=subprocess.DEVNULL,
            env={**os.environ, **place, **({**world, "RANK": str(i), "LOCAL_RANK": str(i)} if ranks > 1 else {})},
        )
        for i in range(ranks)
    ]  # fmt: skip
    try:
        codes = [process.wait(timeout=1800) for process in started]
    finally:
        for process in started:
            process.kill()
    if any(codes):
        raise RuntimeError(f"{module} {' '.join(argv)} ended with {codes}")


if __name__ == "__main__":
    main(
        "plan_error",
        "At depth {depth} and width {width} on processors plans of memory were wrong by at most a factor "
        "{worst_memory:.2f}, plans of a step by {worst_step:.2f}",
        measure,
        smoke={"depth": 1, "width": 32, "block": 16, "batch": 2, "steps": 3, "cases": 1},
    )
