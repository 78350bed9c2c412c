"""What does an exact msign cost and bring? Time, polar error, slope and loss of Muon by the number of its steps.

    python -m benchmarks.train.muon_exactness                                # 640 steps at depth 2, one seed
    python -m benchmarks.train.muon_exactness --seeds 0 1 2 --ways "Muon, steps=3" "torch.optim.Muon + fused AdamW"

The runs are those of `push`: its point, tuned for 640 steps, and one optimizer a run; all iterate in bfloat16. Time is
that of ``optimizer.step()`` alone, processor time, in turns, on the parameters of the run with random gradients. The
polar error is taken of Gaussian matrices of the shapes and of the momenta after --warm steps, whose smallest singular
values are far smaller; slope is what becomes of a singular value of 1e-4 of the largest, over that value, in a Gaussian
matrix of the squarest shape. "No tail": the same polynomials, and the smallest singular values are left where they put
them. Finished runs in --runs are kept; there is a record after every run.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import Times, alternate
from benchmarks._runs import FIXED, TINY, file_name, finish_run, new_session, summary
from benchmarks.matfun._peers import newton_schulz
from benchmarks.optim.muon_step import PEER, Sign, gaussian, polar_error, slope
from benchmarks.train.push import MODEL, POINT
from spectrain import approx, matfun
from spectrain.optim import Matrix
from spectrain.train import TrainConfig
from spectrain.train._run.loop import step
from spectrain.train._run.session import Session

WAYS: dict[str, dict[str, Any]] = {
    "Muon": {},
    "Muon, steps=4": {"muon_steps": 4},
    "Muon, steps=3": {"muon_steps": 3},
    "Muon, steps=3, no tail": {"muon_steps": 3, "muon_lower": 0.045},
    "Muon, steps=2": {"muon_steps": 2},
    PEER: {"optimizer": "torch-muon"},
}
"""Settings of a run, by what is in a row; 0.045 is the lower end of three steps by default."""


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    depth: int = 2,
    steps: int = 640,
    seeds: tuple[int, ...] = (0,),
    ways: tuple[str, ...] = tuple(WAYS),
    rounds: int = 15,
    warm: int = 20,
    model: Mapping[str, Any] = MODEL,
) -> Iterator[Found]:
    """``steps`` of a run under each of ``ways``, torch's always among them; ``rounds`` of timing."""
    base = {**FIXED, "data": data, **POINT, **model, "depth": depth}
    names = [*(name for name in ways if name != PEER), PEER]
    rows = {name: {"optimizer": name} for name in names}
    for name, figures in exactness(base, names, runs / "sessions", rounds, warm).items():
        rows[name] |= figures
    losses: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        for name in reversed(names):
            one = {**base, **WAYS[name], "seed": seed, "max_steps": steps}
            folder = runs / f"d{depth}-{steps}" / f"{file_name(name)}-seed{seed}"
            losses[name].append(float(summary(finish_run(folder, **one))["validation_loss"]))
            yield _found(rows, losses, f"d{depth}_{steps}")


def exactness(
    base: Mapping[str, Any], names: Sequence[str], scratch: Path, rounds: int, warm: int
) -> dict[str, dict[str, float]]:
    """Time of a step, polar errors and slope under each optimizer."""
    sessions = {n: new_session(TrainConfig(**{**base, **WAYS[n], "max_steps": warm}), scratch / n) for n in names}
    momenta = _momenta(sessions[names[0]], warm)
    times = _times(sessions, rounds)
    shapes = sorted({tuple(M.shape) for M in momenta})
    drawn = [gaussian(shape) for shape in shapes]
    squarest = gaussian(min(shapes, key=lambda s: max(s) / min(s)))
    found = {}
    for name in names:
        sign, (low, middle, high) = sign_of(name), times.quartiles(name, PEER)
        found[name] = {"ms": 1e3 * times.median(name), "ratio": middle, "from": low, "to": high,
                       "polar error": polar_error(drawn, sign), "of momenta": polar_error(momenta, sign),
                       "slope": slope(squarest, sign)}  # fmt: skip
    return found


def sign_of(name: str) -> Sign:
    """msign as the optimizer of a row computes it."""
    said = WAYS[name]
    if name == PEER:
        return lambda X: newton_schulz(X.clone())
    steps, lower = said.get("muon_steps", 5), said.get("muon_lower")
    how: dict[str, Any] = {"steps": steps}
    if lower is not None:
        how = {"schedule": approx.sign_schedule(lower, steps=steps, dtype="bfloat16")}
    return lambda X: matfun.msign([X], **how, dtype=torch.bfloat16, out_dtype=X.dtype)[0]


def _momenta(session: Session, warm: int) -> list[Tensor]:
    """The momenta of a run of our Muon after some steps, matrix by matrix."""
    for at in range(warm):
        session.set_learning_rate()
        step(session.job, session.optimizer, at, clip=session.clip_gradients)
    return [
        view.clone()
        for group in session.optimizer.param_groups
        if group.get("algorithm") == "muon"
        for p in group["params"]
        for view in Matrix.from_dict(group["matrix"]).views(session.optimizer.state[p]["momentum_buffer"])
    ]


def _times(sessions: Mapping[str, Session], rounds: int) -> Times:
    """Processor time of ``optimizer.step()`` with random gradients, the same for all, in turns."""
    for session in sessions.values():
        generator = torch.Generator().manual_seed(0)
        for p in session.model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
    torch.empty(3 * 2**21).fill_(0)  # 24 MiB, freed at once: glibc keeps memory from then on, as in training
    return alternate({n: s.optimizer.step for n, s in sessions.items()}, rounds=rounds, clock=time.process_time)


def _found(rows: Mapping[str, dict[str, Any]], losses: Mapping[str, Sequence[float]], part: str) -> Found:
    lines = []
    for name, row in rows.items():
        mine, theirs = losses[name], losses[PEER]
        gaps = [a - b for a, b in zip(mine, theirs, strict=False)]
        spread = f" ± {statistics.stdev(gaps):.4f}" if len(gaps) > 1 else ""
        against = f"{statistics.fmean(gaps):+.4f}{spread}" if gaps else ""
        lines.append({**row, "loss": statistics.fmean(mine) if mine else None, "over torch's": against})
    gaps = [float(str(line["over torch's"]).split()[0]) for line in lines[:-1] if line["over torch's"]]
    said = f"from {min(gaps):+.3f} to {max(gaps):+.3f}" if gaps else "not known yet"
    head = f"Loss: of all held-out text, in nats a token, means over {max(map(len, losses.values()))} seeds."
    return Found(
        rows=[{**line, "losses": list(losses[str(line["optimizer"])])} for line in lines],
        body=f"{_record.show(lines)}\n\n{head} Ratio: to {PEER}, the median of the rounds and its quartiles.",
        figures={"said": said, **{f"{n}: time over {PEER}": row["ratio"] for n, row in rows.items() if n != PEER}},
        part=part,
    )


if __name__ == "__main__":
    main(
        "muon_exactness",
        "After {steps} steps at depth {depth} the loss under Muon is {said} nats against torch.optim.Muon's, by the "
        "number of quintics",
        measure,
        smoke={"model": TINY, "steps": 2, "depth": 1, "rounds": 1, "warm": 2, "ways": ("Muon", "Muon, steps=3")},
    )
