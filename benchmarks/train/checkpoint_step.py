"""What a checkpoint of several ranks costs training: seconds of a step while one is written, and while none is.

Ranks are forked from this process, and a run alternates: some steps with nothing beside them, a checkpoint, steps until
it is on the disk on every rank, which are at least one; the last of them has it beside it in part only. The call that
takes the checkpoint, a copy of this rank's part of all tensors, is timed apart.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks.train.plan_error import made, together
from spectrain._files.write import write_json
from spectrain.train import TrainConfig
from spectrain.train._run import loop
from spectrain.train._run.machine import keep_memory
from spectrain.train._run.prepare import prepare
from spectrain.train._run.repeating import repeating
from spectrain.train._run.session import Session
from spectrain.train.internal import in_folder
from spectrain.train.runs import Progress

KINDS = ("alone", "beside", "taking", "written")
"""Seconds of a step, of one beside a checkpoint, of the call that takes one, and until it is on the disk."""


def measure(
    *, ranks: int = 2, depth: int = 4, width: int = 512, block: int = 128, batch: int = 8, rounds: int = 8,
    steps: int = 4, runs: Path,
) -> Found:  # fmt: skip
    size = {"depth": depth, "width": width, "heads": max(2, width // 64), "kv_heads": 2, "block": block}
    config = made(10**6, batch, **size, mesh=f"1x{ranks}", out_dir=str(runs / "run"), resume="auto")
    runs.mkdir(parents=True, exist_ok=True)
    together(ranks, watched, config, rounds, steps)
    rows = json.loads((runs / "run" / "seconds.json").read_text(encoding="utf-8"))["rows"]
    middle = {kind: statistics.median(row["seconds"] for row in rows if row["kind"] == kind) for kind in KINDS}
    newest = max((runs / "run" / "checkpoints").iterdir())
    shown = [{"what": kind, "times": sum(r["kind"] == kind for r in rows), "ms": 1e3 * middle[kind]} for kind in KINDS]
    return Found(
        rows=rows,
        body=show(shown),
        figures={
            "ratio": middle["beside"] / middle["alone"],
            "megabytes": sum(file.stat().st_size for file in newest.rglob("*") if file.is_file()) / 1e6,
            **{f"{kind}_ms": 1e3 * seconds for kind, seconds in middle.items()},
        },
    )


def watched(config: TrainConfig, rounds: int, steps: int) -> int:
    """One rank: begin the run, and alternate; the first writes down what it saw."""
    keep_memory()
    with in_folder(config) as full, Progress(interval=10**6) as screen, repeating():
        session = prepare(dataclasses.replace(full, resume="auto"), screen)
        for _ in range(2):  # what the first steps make, later ones find
            loop._one_step(session, screen)
        rows = [row for number in range(rounds) for row in turn(session, screen, number, steps)]
        if session.job.ranks.first:
            write_json(session.folder.path / "seconds.json", {"rows": rows})
    return 0


def turn(session: Session, screen: Progress, number: int, steps: int) -> list[dict[str, Any]]:
    """Some steps alone, then a checkpoint and steps beside it; all ranks take as many."""

    def timed(kind: str, call: Any, *given: Any) -> dict[str, Any]:
        began = time.perf_counter()
        call(*given)
        return {"round": number, "kind": kind, "seconds": time.perf_counter() - began}

    rows = [timed("alone", loop._one_step, session, screen) for _ in range(steps)]
    began = time.perf_counter()
    rows.append(timed("taking", session.save))
    writing = session._writing
    assert writing is not None, "several ranks write while they train"
    while True:
        rows.append(timed("beside", loop._one_step, session, screen))
        if not session.job.ranks.any(writing.thread.is_alive()):
            break
    session.settle()
    return [*rows, {"round": number, "kind": "written", "seconds": time.perf_counter() - began}]


if __name__ == "__main__":
    main(
        "checkpoint_step",
        "On {ranks} ranks of depth {depth} and width {width} a step beside the writing of a checkpoint of "
        "{megabytes:.3g} MB took {ratio:.2f} times one alone, and taking it {taking_ms:.0f} ms",
        measure,
        smoke={"depth": 1, "width": 32, "block": 16, "batch": 2, "rounds": 2, "steps": 2},
    )
