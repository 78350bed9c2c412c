"""What `spectrain plan` says of runs on processors, beside what they do: memory of a rank, and seconds of a step.

For each number of ranks the machine is measured by so many ranks at once (`spectrain calibrate`), then runs are planned
and made. Ranks are forked from this process. Memory is the most anonymous memory before the last checkpoint, beyond
that of a run of as many ranks whose model is almost nothing.
"""

import dataclasses
import json
import multiprocessing
import os
import socket
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks._memory import Peak
from benchmarks._program import main
from benchmarks._record import Found, table
from benchmarks._runs import TINY
from spectrain import cli
from spectrain.train import TrainConfig, train
from spectrain.train._run import session
from spectrain.train.planning import Cluster, RunPlan, plan_run, read_cluster

CASES: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}), (1, {"recompute": True}), (2, {"mesh": "1x2"}), (2, {"mesh": "2x1"}),
    (2, {"mesh": "1x1", "tensor_parallel": 2}), (4, {"mesh": "1x4"}), (4, {"mesh": "2x2"}),
)  # fmt: skip
"""Ranks, and what else is asked for."""
ALMOST_NOTHING = {"depth": 1, "width": 32, "heads": 2, "kv_heads": 2, "hidden": 64, "block": 16}
KINDS = ("memory", "step", "gradient", "optimizer")
"""MB beyond a model of almost nothing; ms of a step, of loss and gradient with what travels for them, of the update."""


def measure(
    *, depth: int = 2, width: int = 256, block: int = 128, batch: int = 8, steps: int = 6, cases: int = 7, runs: Path
) -> Iterator[Found]:
    size = {"depth": depth, "width": width, "heads": max(2, width // 64), "kv_heads": 2, "block": block}
    rows: list[dict[str, Any]] = []
    clusters: dict[int, Cluster] = {}
    floors: dict[int, dict[str, float]] = {}
    for ranks, asked in CASES[:cases]:
        name = f"{ranks} {' '.join(f'{key}={value}' for key, value in asked.items())}".strip()
        if ranks not in clusters:
            clusters[ranks] = calibrated(ranks, runs / f"machine{ranks}.json")
            whole = {} if ranks == 1 else {"mesh": f"1x{ranks}"}
            floors[ranks] = watched(ranks, runs / f"floor{ranks}", made(steps, batch, **ALMOST_NOTHING, **whole))
        config = made(steps, batch, **size, **asked)
        plan = plan_run(config, clusters[ranks])
        rows += compared(name, plan, watched(ranks, runs / name.replace(" ", "-"), config), floors[ranks])
        yield found_so_far(rows, clusters)


def found_so_far(rows: list[dict[str, Any]], clusters: dict[int, Cluster]) -> Found:
    ratios = {kind: [r["planned"] / r["measured"] for r in rows if r["kind"] == kind] for kind in KINDS}
    worst = {f"worst_{kind}": max(max(ratio, 1 / ratio) for ratio in found) for kind, found in ratios.items()}
    middle = {f"median_{kind}": statistics.median(found) for kind, found in ratios.items()}
    lines = [
        [r["run"], r["kind"], *(f"{x:.3g}" for x in (r["planned"], r["measured"], r["planned"] / r["measured"]))]
        for r in rows
    ]
    return Found(
        rows=list(rows),
        body=table(["ranks", "what", "planned", "measured", "planned / measured"], lines),
        figures=worst | middle,
        data={"machines": {str(ranks): cluster.as_dict() for ranks, cluster in clusters.items()}},
    )


def compared(run: str, plan: RunPlan, seen: dict[str, float], floor: dict[str, float]) -> list[dict[str, Any]]:
    update = sum(plan.seconds.get(name, 0.0) for name in ("Muon's exchange", "msign", "other updates"))
    planned = {
        "memory": plan.bytes / 1e6,
        "step": 1e3 * plan.step_seconds,
        "gradient": 1e3 * (plan.step_seconds - update - plan.seconds["agreement"]),
        "optimizer": 1e3 * update,
    }
    measured = {**seen, "memory": max(0.01, seen["memory"] - floor["memory"])}
    return [{"run": run, "kind": kind, "planned": planned[kind], "measured": measured[kind]} for kind in KINDS]


def made(steps: int, batch: int, **asked: Any) -> TrainConfig:
    """A run without anything in it but steps."""
    settings = {
        **TINY, "autocast": "off", "muon_dtype": "float32", "threads": 1, "eval_tokens": 16, "final_eval_tokens": 16,
        "eval_interval": 1000, "save_interval": 1000, "warmup": 2, "max_steps": steps, "batch_size": batch,
    }  # fmt: skip
    return TrainConfig(**{**settings, **asked})


def calibrated(ranks: int, out: Path) -> Cluster:
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        together(ranks, cli.main, ["calibrate", "--out", str(out), "--threads", "1"])
    return read_cluster(str(out))


def watched(ranks: int, folder: Path, config: TrainConfig) -> dict[str, float]:
    """A run that is finished, or was: the most memory of its ranks in MB, and medians of its steps in ms."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    if not (run / "summary.json").exists():
        together(ranks, seen, folder, config)
    memory = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("rank*.json")]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    taken = [line for line in lines if line["kind"] == "step"][2:]
    step, update = (1e3 * statistics.median(r[f"{name}_seconds"] for r in taken) for name in ("step", "optimizer"))
    return {"memory": max(memory), "step": step, "optimizer": update, "gradient": step - update}


def seen(folder: Path, config: TrainConfig) -> int:
    """One rank: train, and write down the most memory before the last checkpoint."""
    with Peak(interval=0.002) as peak:
        save = session.Session.save

        def noted(self: session.Session) -> None:
            most = (peak.most - peak.before) * 2**20 / 1e6
            (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(most), encoding="utf-8")
            save(self)

        session.Session.save = noted
        train(dataclasses.replace(config, out_dir=str(folder / "run"), resume="auto"))
    return 0


def together(ranks: int, call: Any, *given: Any) -> None:
    """Call on so many ranks, which find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=one, args=(rank, ranks, port, call, given)) for rank in range(ranks)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise RuntimeError(f"{given} ended with {[process.exitcode for process in started]}")


def one(rank: int, ranks: int, port: int, call: Any, given: Any) -> None:
    if ranks > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    code = call(*given)
    os._exit(code)


if __name__ == "__main__":
    main(
        "plan_error",
        "At depth {depth} and width {width} on processors plans of memory were wrong by at most a factor "
        "{worst_memory:.2f}, plans of a step by {worst_step:.2f}",
        measure,
        smoke={"depth": 1, "width": 32, "block": 16, "batch": 2, "steps": 4, "cases": 1},
    )
