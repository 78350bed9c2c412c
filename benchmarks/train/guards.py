"""What the guards of `spectrain train` cost: a step with each flag beside one without, in turns, in processor time.

    python -m benchmarks.train.guards

Bounds on singular values (article 11729), the clip of logits (11126), an average of weights, heads apart (10907), and
what experts add. Attention without norms stands beside attention without norms. Nothing is trained to an end here.
"""

import itertools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from benchmarks._runs import FIXED, TINY, new_session
from spectrain.train import TrainConfig
from spectrain.train._run.loop import step

EXPERTS = {"moe_experts": 16, "moe_top_k": 4, "moe_shared": 2}
FLAGS: dict[str, tuple[dict[str, Any], str]] = {
    "as it is": ({}, "as it is"),
    "--bound 1, clipped after": ({"bound": 1.0}, "as it is"),
    "--bound 1, shrunk before": ({"bound": 1.0, "bound_by": "pre-decay"}, "as it is"),
    "--average 0.1": ({"average": 0.1}, "as it is"),
    "--muon-per-head": ({"muon_per_head": True}, "as it is"),
    "--qk-norm off": ({"qk_norm": "off"}, "as it is"),
    "--qk-clip inf": ({"qk_norm": "off", "qk_clip": float("inf")}, "--qk-norm off"),
    "--qk-clip 1": ({"qk_norm": "off", "qk_clip": 1.0}, "--qk-norm off"),
    "experts": (EXPERTS, "as it is"),
    "--moe-penalty 0.01": (EXPERTS | {"moe_penalty": 0.01}, "experts"),
    "--moe-select threshold": (EXPERTS | {"moe_select": "threshold"}, "experts"),
    "--moe-balance quantile": (EXPERTS | {"moe_balance": "quantile"}, "experts"),
}
"""Flags, and beside which others they stand."""


def measure(
    *,
    data: tuple[str, ...] = (),
    depth: int = 2,
    rounds: int = 15,
    flags: tuple[str, ...] = tuple(FLAGS),
    model: Mapping[str, Any] = {"threads": 1},
) -> Found:
    """Steps of all in every round, after two that do not count."""
    with tempfile.TemporaryDirectory() as scratch:
        calls = {}
        for name in flags:
            shared = {"data": data, **FIXED, **model, "depth": depth, "max_steps": 10**6, **FLAGS[name][0]}
            session, count = new_session(TrainConfig(**shared), Path(scratch, str(len(calls)))), itertools.count()

            def one(session: Any = session, count: Any = count) -> None:
                session.set_learning_rate()
                step(session.job, session.optimizer, next(count), clip=session.clip_gradients)
                session.job.after_step(1.0)

            calls[name] = one
        times = alternate(calls, rounds=rounds, warm=2, back=True, clock=time.process_time)
    rows = [{"flags": name, "beside": (base := FLAGS[name][1]), "seconds": times.median(name),
             "quartiles": times.quartiles(name, base)} for name in flags]  # fmt: skip
    lines = [
        [
            row["flags"],
            row["beside"],
            f"{row['seconds']:.3f}",
            "{1:.3f} ({0:.3f} ... {2:.3f})".format(*row["quartiles"]),
        ]
        for row in rows
    ]
    body = _record.table(["flags", "beside", "processor seconds of a step", "times that, median (quartiles)"], lines)
    figures = {row["flags"]: row["quartiles"][1] for row in rows}
    tokens = TrainConfig(**{"max_steps": 1, **model}).tokens_per_step
    body += f"\n\n{rounds} rounds in turns, depth {depth}, steps of {tokens:,} tokens, bfloat16, processor time."
    return Found(rows=rows, body=body, figures=figures | {"dearest": max(figures, key=lambda name: figures[name])})


if __name__ == "__main__":
    main(
        "guards",
        "What guards add to a training step at depth {depth}, in processor time; dearest beside its base: {dearest}",
        measure,
        smoke={"model": TINY, "depth": 1, "rounds": 2, "flags": ("as it is", "--bound 1, clipped after")},
    )
