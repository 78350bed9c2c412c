"""Runs of several ranks, forked from one process that has imported everything: what torchrun starts, in less time.

python tests/train/ranks.py FOLDER < JOBS: a list of jobs as JSON, run one after the other. Of each, FOLDER/NAME holds
what every rank printed and the exit codes. As torchrun does, this process keeps the store and starts all ranks again
where one has failed, ``restarts`` times.
"""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import kills
import torch
import torch.distributed as dist

from spectrain.cli import main
from spectrain.train import train
from spectrain.train._jobs import language
from spectrain.train._mesh import bounds, exchange, ranks, shards
from spectrain.train._run import checkpoint, loop, observe, prepare

LOADED = (train, loop, observe, prepare, checkpoint)
PATIENCE, MERCY = 15.0, 5.0
"""Seconds that the others have to end by themselves, and then after SIGTERM, as torchrun's agent sends it."""


def nan_on_last(rank, world):
    """A batch that gives NaN at step 3, on the last rank only."""
    batch = language.LanguageJob.batch
    backward = language.LanguageJob.backward

    def spoilt(job, step):
        job.at = step
        return batch(job, step)

    def poisoned(job, *given):
        nats, penalty = backward(job, *given)
        if job.at == 2 and rank == world - 1:
            job.model.blocks[0].feed_forward.up.register_forward_hook(lambda _m, _i, out: out * math.nan)
            return math.nan, penalty
        return nats, penalty

    language.LanguageJob.batch, language.LanguageJob.backward = spoilt, poisoned


def hangs_on_last(rank, world):
    """The last rank never comes back from the batch of step 3."""
    batch = language.LanguageJob.batch

    def slow(job, step):
        if step == 2 and rank == world - 1:
            time.sleep(3600)
        return batch(job, step)

    language.LanguageJob.batch = slow


def fails_on_last(rank, world):
    """The last rank has an error of its own at step 3."""
    batch = language.LanguageJob.batch

    def broken(job, step):
        if step == 2 and rank == world - 1:
            raise OSError(5, "the disk of this machine is broken")
        return batch(job, step)

    language.LanguageJob.batch = broken


def full_disk_on_last(rank, world):
    """The last rank cannot write its part of the second checkpoint."""
    write, calls = shards.file_digest, []

    def refused(file):
        if rank == world - 1 and file.name.startswith("__"):
            calls.append(file)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        return write(file)

    shards.file_digest = refused


def slow_checkpoints(rank, world):
    """A checkpoint takes a while on every rank: a kill comes in the middle of it."""
    write = shards.file_digest
    shards.file_digest = lambda file: (time.sleep(0.3), write(file))[1]


def same_rows(rank, world):
    """Wrong: every rank learns from the first rows of the batch."""
    ranks.Ranks.share = lambda self, numbers: numbers[: len(numbers) // self.layout.parts]


def own_mean(rank, world):
    """Wrong: every rank divides by its own targets."""
    ranks.Ranks.sums = lambda self, *own: list(own)


def never_meets(rank, world):
    """Wrong: gradients are summed over the ranks for the first part of a batch only."""
    meets = language.meets
    language.meets = lambda model, *, now: meets(model, now=not now)


def own_peaks(rank, world):
    """Wrong: every rank clips by the logits of its own rows."""
    ranks.Ranks.most = lambda self, own: own[None]


def clips_parts(rank, world):
    """Wrong: every rank clips what it has of a matrix as if that were all."""

    def hold(self, *_):
        for matrix in self._matrices():
            with torch.no_grad():
                bounds.post_clip([bounds.local(matrix.p)], matrix.settings)

    bounds.Bounds._hold = hold


def experts_apart(rank, world):
    """Wrong: every rank asks its own experts only."""
    exchange._gather = lambda rows, group: rows.repeat(world, *[1] * (rows.ndim - 1))
    exchange._scatter = lambda rows, group: rows.chunk(world)[rank]


def own_gradients(rank, world):
    """Wrong: what other ranks' experts say of a token does not come back to it."""
    exchange._Gathered.backward = staticmethod(lambda ctx, grad: (grad.chunk(world)[rank], None))


def other_code(rank, world):
    """The last rank runs another version."""
    from spectrain.train._mesh import join

    if rank == world - 1:
        join.code_digest = lambda: "another"


def counts_bytes(rank, world):
    """Writes down what this rank sends for the gradient of batch 3: gathered weights, and gradients that are summed."""
    sent, inside = {"gather": 0.0, "reduce": 0.0}, []

    def counted(kind, call):
        def wrapped(*given, **named):
            tensors = [value for value in (*given, *named.values()) if isinstance(value, torch.Tensor)]
            if not inside:  # the name of one release calls that of the next
                whole = max(tensor.numel() * tensor.element_size() for tensor in tensors)
                sent[kind] += whole * (world - 1) / world
            inside.append(kind)
            try:
                return call(*given, **named)
            finally:
                inside.pop()

        return wrapped

    names = {"gather": ("all_gather_into_tensor", "all_gather_single"),
             "reduce": ("reduce_scatter_tensor", "reduce_scatter_single")}  # fmt: skip
    for kind, calls in names.items():
        for name in (name for name in calls if hasattr(dist, name)):
            setattr(dist, name, counted(kind, getattr(dist, name)))
    accumulate = language.LanguageJob.accumulate

    def watched(job, at):
        sent.update(gather=0.0, reduce=0.0)
        found = accumulate(job, at)
        if at == 3:
            (job.folder.path / f"sent{rank}.json").write_text(json.dumps(sent))
        return found

    language.LanguageJob.accumulate = watched


def counts_memory(rank, world):
    """Writes down the most bytes that torch has in use during step 3: what lies there before, and what is made."""
    from torch.profiler import ProfilerActivity, profile

    step = loop.step

    def watched(job, optimizer, at, *, clip):
        if at != 2:
            return step(job, optimizer, at, clip=clip)
        optimizer.zero_grad()
        kept = [p for group in optimizer.param_groups for p in group["params"]]
        kept += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        own = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in kept]
        now = most = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in own}.values())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            found = step(job, optimizer, at, clip=clip)
        events = seen.profiler.kineto_results.events()
        for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
            now += size
            most = max(most, now)
        Path(f"{job.folder.path}.memory{rank}").write_text(str(most))
        return found

    loop.step = watched


PATCHES = {
    f.__name__: f
    for f in (
        nan_on_last,
        hangs_on_last,
        fails_on_last,
        full_disk_on_last,
        slow_checkpoints,
        same_rows,
        own_mean,
        never_meets,
        own_peaks,
        clips_parts,
        experts_apart,
        own_gradients,
        other_code,
        counts_bytes,
        counts_memory,
    )
}


def run(rank, job, port, folder, attempt):
    """One rank: the command in this process, as torchrun's environment says."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["world"]), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), TORCHELASTIC_RESTART_COUNT=str(attempt),
        TORCHELASTIC_MAX_RESTARTS=str(job.get("restarts", 0)), TORCHELASTIC_USE_AGENT_STORE="True",
    )  # fmt: skip
    os.environ.update(job.get("environment", {}))
    os.chdir(job.get("folders", [os.getcwd()] * job["world"])[rank])
    torch.set_num_threads(1)
    if job.get("patch"):
        PATCHES[job["patch"]](rank, job["world"])
    kill = job["arms"][attempt] if attempt < len(job.get("arms", ())) else None
    if kill is not None and kill["rank"] == rank:
        kills.arm(kill)
    own = job.get("own", {}).get(str(rank), [])
    try:
        code = main([*map(str, job["argv"]), *own])
    except SystemExit as leaving:
        code = leaving.code or 0
    compiled = sys.modules.get("torch._dynamo.utils")
    (folder / f"{rank}.graphs").write_text(json.dumps(compiled.counters["stats"] if compiled else {}))
    sys.stdout.flush()
    os._exit(code)


def rows(file):
    """Lines of steps that a run has written."""
    try:
        return file.read_text(encoding="utf-8").count('"kind": "step"')
    except OSError:
        return 0


def kill_when(kill, job, started, began):
    """Kill a rank once the run has come so far; whether that is done or no more possible."""
    ready = time.monotonic() - began > kill["after"] if "after" in kill else rows(Path(job["metrics"])) >= kill["rows"]
    if not ready:
        return False
    if "stop" in kill:
        for process in started:
            os.kill(process.pid, kill["stop"])
        return True
    time.sleep(kill.get("delay", 0.0))
    if started[kill["rank"]].is_alive():
        os.kill(started[kill["rank"]].pid, kill.get("signal", signal.SIGKILL))
    return True


def attempt_once(job, folder, number, port):
    """Start all ranks and wait for them; their exit codes."""
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=run, args=(i, job, port, folder, number)) for i in range(job["world"])]
    for process in started:
        process.start()
    planned = job.get("kills", [])
    kill, began = (planned[number] if number < len(planned) else None), time.monotonic()
    failed = None
    while any(process.is_alive() for process in started):
        if kill is not None and kill_when(kill, job, started, began):
            kill = None
        if failed is None and any(process.exitcode for process in started):
            failed = time.monotonic()
        waited = 0.0 if failed is None else time.monotonic() - failed - job.get("patience", PATIENCE)
        for process in started if waited > 0 else ():
            process.kill() if waited > job.get("mercy", MERCY) else process.terminate()
        time.sleep(0.005)
    return [process.exitcode for process in started]


def do(job, folder):
    """One job; what it came to is in FOLDER/codes."""
    folder.mkdir(parents=True)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # one for all attempts
    codes = [attempt_once(job, folder, 0, store.port)]
    while any(codes[-1]) and len(codes) <= job.get("restarts", 0):
        codes.append(attempt_once(job, folder, len(codes), store.port))
    (folder / "codes").write_text(json.dumps(codes))


if __name__ == "__main__":
    for each in json.load(sys.stdin):
        do(each, Path(sys.argv[1]) / each["name"])
