"""What `spectrain plan` says of runs on processors, beside what they do: memory of a rank, and seconds of a step.

For each number of ranks the machine is measured by so many ranks at once (`spectrain calibrate`), then runs are planned
and made. Ranks are forked from this process. Memory is what a plan speaks of: the most bytes that torch has in use
during step 2, counted by its allocator, those of weights and optimizer state among them. What the system gives a
rank is more, and is told apart: `resident` is the most anonymous memory before the last checkpoint beyond that at the
start of the process; `constant` is the same of a run of as many ranks whose model is almost nothing (modules that are
loaded, threads, buffers of gloo); the rest that torch does not use is `held` by the C library, which keeps what was
freed. No plan says anything of these three.
"""

import dataclasses
import json
import multiprocessing
import os
import socket
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from benchmarks._memory import Peak
from benchmarks._program import main
from benchmarks._record import Found, table
from benchmarks._runs import TINY
from spectrain import cli
from spectrain.train import TrainConfig, train
from spectrain.train._plan.plan import UPDATE
from spectrain.train._run import loop, session
from spectrain.train.planning import Cluster, RunPlan, plan_run, read_cluster

CASES: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}), (1, {"recompute": True}), (2, {"mesh": "1x2"}), (2, {"mesh": "2x1"}),
    (2, {"mesh": "1x1", "tensor_parallel": 2}), (4, {"mesh": "1x4"}), (4, {"mesh": "2x2"}),
)  # fmt: skip
"""Ranks, and what else is asked for."""
ALMOST_NOTHING = {"depth": 1, "width": 32, "heads": 2, "kv_heads": 2, "hidden": 64, "block": 16}
KINDS = ("memory", "step", "gradient", "optimizer")
"""MB in use by torch; ms of a step, of loss and gradient with what travels for them, of the update."""
COUNTED = 2
"""The step whose bytes are counted; its seconds, which counting makes longer, are left out."""


def measure(
    *,
    depth: int = 2,
    width: int = 256,
    block: int = 128,
    batch: int = 8,
    steps: int = 12,
    cases: int = 7,
    rounds: int = 3,
    runs: Path,
) -> Iterator[Found]:
    size = {"depth": depth, "width": width, "heads": max(2, width // 64), "kv_heads": 2, "block": block}
    rows: list[dict[str, Any]] = []
    clusters: dict[int, Cluster] = {}
    constant: dict[int, float] = {}
    system: list[dict[str, Any]] = []
    for ranks, asked in CASES[:cases]:
        name = f"{ranks} {' '.join(f'{key}={value}' for key, value in asked.items())}".strip()
        if ranks not in clusters:
            clusters[ranks] = calibrated(ranks, runs / f"machine{ranks}.json", rounds)
            whole = {} if ranks == 1 else {"mesh": f"1x{ranks}"}
            floor = watched(ranks, runs / f"floor{ranks}", made(steps, batch, **ALMOST_NOTHING, **whole))
            constant[ranks] = floor["resident"]
        config = made(steps, batch, **size, **asked)
        plan = plan_run(config, clusters[ranks])
        found = watched(ranks, runs / name.replace(" ", "-"), config)
        rows += compared(name, plan, found)
        own = {"memory": found["memory"], "constant": constant[ranks], "resident": found["resident"]}
        system.append({"run": name, **own, "held": found["resident"] - constant[ranks] - found["memory"]})
        yield found_so_far(rows, system, clusters)


def found_so_far(rows: list[dict[str, Any]], system: list[dict[str, Any]], clusters: dict[int, Cluster]) -> Found:
    ratios = {kind: [r["planned"] / r["measured"] for r in rows if r["kind"] == kind] for kind in KINDS}
    worst = {f"worst_{kind}": max(max(ratio, 1 / ratio) for ratio in found) for kind, found in ratios.items()}
    least = {f"least_{kind}": min(found) for kind, found in ratios.items()}
    largest = {f"largest_{kind}": max(found) for kind, found in ratios.items()}
    lines = [
        [r["run"], r["kind"], *(f"{x:.3g}" for x in (r["planned"], r["measured"], r["planned"] / r["measured"]))]
        for r in rows
    ]
    given = [[r["run"], *(f"{r[key]:.3g}" for key in ("memory", "constant", "held", "resident"))] for r in system]
    return Found(
        rows=list(rows),
        body=table(["ranks", "what", "planned", "measured", "planned / measured"], lines)
        + "\n\nWhat the system gives a rank, in MB, of which no plan speaks but for the first column:\n\n"
        + table(["ranks", "in use by torch", "constant", "held", "resident"], given),
        figures=worst | least | largest,
        data={
            "system": list(system),
            "machines": {str(ranks): cluster.as_dict() for ranks, cluster in clusters.items()},
        },
    )


def compared(run: str, plan: RunPlan, measured: dict[str, float]) -> list[dict[str, Any]]:
    update = sum(plan.seconds.get(name, 0.0) for name in UPDATE)
    planned = {
        "memory": plan.bytes / 1e6,
        "step": 1e3 * plan.step_seconds,
        "gradient": 1e3 * (plan.step_seconds - update),
        "optimizer": 1e3 * update,
    }
    return [{"run": run, "kind": kind, "planned": planned[kind], "measured": measured[kind]} for kind in KINDS]


def made(steps: int, batch: int, **asked: Any) -> TrainConfig:
    """A run without anything in it but steps."""
    settings = {
        **TINY, "autocast": "off", "muon_dtype": "float32", "threads": 1, "eval_tokens": 16, "final_eval_tokens": 16,
        "eval_interval": 1000, "save_interval": 1000, "warmup": 2, "max_steps": steps, "batch_size": batch,
    }  # fmt: skip
    return TrainConfig(**{**settings, **asked})


def calibrated(ranks: int, out: Path, rounds: int) -> Cluster:
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        together(ranks, cli.main, ["calibrate", "--out", str(out), "--threads", "1", "--rounds", str(rounds)])
    return read_cluster(str(out))


def watched(ranks: int, folder: Path, config: TrainConfig) -> dict[str, float]:
    """A run that is finished, or was: the most memory of its ranks in MB, and medians of its steps in ms."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    if not (run / "summary.json").exists():
        together(ranks, seen, folder, config)
    every = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("rank*.json")]
    memory = {kind: max(rank[kind] for rank in every) for kind in ("memory", "resident")}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    taken = [line for line in lines if line["kind"] == "step"][2:]
    step, update = (1e3 * statistics.median(r[f"{name}_seconds"] for r in taken) for name in ("step", "optimizer"))
    return {**memory, "step": step, "optimizer": update, "gradient": step - update}


def seen(folder: Path, config: TrainConfig) -> int:
    """One rank: train, and write down the bytes of one step, and what the system has given by the last checkpoint."""
    found = {"memory": 0.0, "resident": 0.0}
    save, step, peak = session.Session.save, loop.step, Peak(interval=0.002)

    def noted(self: session.Session) -> None:
        found["resident"] = (peak.most - peak.before) * 2**20 / 1e6
        (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found), encoding="utf-8")
        save(self)

    def watched(job: Any, optimizer: torch.optim.Optimizer, at: int, *, clip: Callable[[], float]) -> loop.StepResult:
        if at + 1 != COUNTED:
            return step(job, optimizer, at, clip=clip)
        result, found["memory"] = counted(optimizer, lambda: step(job, optimizer, at, clip=clip))
        return result

    session.Session.save, loop.step = noted, watched
    with peak:
        train(dataclasses.replace(config, out_dir=str(folder / "run"), resume="auto"))
    return 0


def counted(optimizer: torch.optim.Optimizer, step: Callable[[], loop.StepResult]) -> tuple[loop.StepResult, float]:
    """What a step gives, and the most MB that torch has in use meanwhile: what is there before it, and what is made."""
    optimizer.zero_grad()
    kept = [p for group in optimizer.param_groups for p in group["params"]]
    kept += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    own = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in kept]
    now = most = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in own}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as made:
        result = step()
    events = made.profiler.kineto_results.events()
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += size
        most = max(most, now)
    return result, most / 1e6


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
        "At depth {depth} and width {width} on processors plans of memory were {least_memory:.2f} to "
        "{largest_memory:.2f} of what torch had in use, plans of a step {least_step:.2f} to {largest_step:.2f} of what "
        "it took",
        measure,
        smoke={"depth": 1, "width": 32, "block": 16, "batch": 2, "steps": 4, "cases": 1, "rounds": 1},
    )
