"""What waiting threads cost: training alone, and beside two busy programs, by how long OpenMP's threads spin.

    python -m benchmarks.train.threads    # about half an hour

OpenMP's threads wait for the next piece of work by spinning. Alone on a machine that is the fastest way to wait.
Beside other programs a spinning thread holds the core that the thread it waits for would need. Each setting of the
environment runs in a process of its own, since the library reads it once, when torch loads: the default model of
``spectrain train`` (depth 4, float32), Muon's step included, on as many threads as there are cores. A round runs every
setting alone and then every setting beside one busy loop a core. Compared are the ratios to "as it is" of a round.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain._spinning import KNOWN, SPINS

AS_IT_IS, CORES = "as it is", os.cpu_count() or 1
SETTINGS: dict[str, dict[str, str]] = {
    AS_IT_IS: {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": str(n)} for n in (1_000, 10_000, 50_000, 200_000)},
}
PROGRAM = """
import sys, time, statistics
import torch
from spectrain import nn, objectives, optim
steps, depth, block, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = nn.LanguageModel(vocabulary=4096, width=64 * depth, depth=depth, heads=depth, kv_heads=max(1, depth // 2))
muon = optim.Muon(model, lr=1e-3, compute_dtype="float32")
def step():
    tokens = torch.randint(4096, (4, block + 1))
    muon.zero_grad(set_to_none=True)
    objectives.negative_log_likelihood(model(tokens[:, :-1]), tokens[:, 1:]).div(4 * block).backward()
    muon.step()
step()
times = []
for _ in range(steps):
    began = time.perf_counter()
    step()
    times.append(time.perf_counter() - began)
print(4 * block / statistics.median(times))
"""


def environment(setting: dict[str, str]) -> dict[str, str]:
    """This process's, without what decides how threads wait, and with the setting."""
    kept = {key: value for key, value in os.environ.items() if key not in (*KNOWN, "OMP_NUM_THREADS")}
    return {**kept, "PYTHONWARNINGS": "ignore", **setting}


def rate(setting: dict[str, str], sizes: list[int]) -> float:
    """Tokens a second, by the median step of a process of its own."""
    call = [sys.executable, "-c", PROGRAM, *map(str, sizes)]
    done = subprocess.run(call, env=environment(setting), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """So many other programs that want a core each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def rates(rounds: int, sizes: list[int], cores: int, names: Sequence[str]) -> list[dict[str, dict[str, float]]]:
    """For each round, tokens a second of every setting alone and beside busy loops, in turns."""
    found = []
    for at in range(rounds):
        turned = [*names[at % len(names) :], *names[: at % len(names)]]  # nobody is always first
        alone = {name: rate(SETTINGS[name], sizes) for name in turned}
        with busy(cores):
            beside = {name: rate(SETTINGS[name], sizes) for name in turned}
        found.append({"alone": alone, "beside": beside})
        print(found[-1], file=sys.stderr, flush=True)
    return found


def measure(
    *,
    rounds: int = 5,
    steps: int = 4,
    depth: int = 4,
    block: int = 256,
    programs: int = CORES,
    names: tuple[str, ...] = tuple(SETTINGS),
) -> Found:
    """Every setting alone and beside so many busy ``programs``; a model of ``depth`` on texts of ``block`` tokens."""
    turns = rates(rounds, [steps, depth, block, CORES], programs, names)
    rows = []
    for name in names:
        row: dict[str, Any] = {"setting": f"{name} (taken)" if SETTINGS[name] == {"GOMP_SPINCOUNT": SPINS} else name}
        for where in ("alone", "beside"):
            ratios = [one[where][name] / one[where][AS_IT_IS] for one in turns]
            row[f"{where}: tokens/s"] = statistics.median(one[where][name] for one in turns)
            row[f"{where}: ratio"] = statistics.median(ratios)
            row[f"{where}: from"], row[f"{where}: to"] = min(ratios), max(ratios)
        rows.append(row)
    body = (
        f"{_record.show(rows)}\n\nRatios are to the environment as it is. Medians over {rounds} rounds; a round runs "
        f"every setting in turn, alone and then beside {programs} endless loops, {CORES} threads each. Ratios are "
        "those of a round, so that what else the machine was doing touches both sides alike. Where it was shared while "
        'this was measured the rates "alone" are lower bounds, and say less than the ratios do.'
    )
    taken = next((row for row in rows if row["setting"].endswith("(taken)")), rows[-1])
    figures = {"alone": taken["alone: ratio"], "beside": taken["beside: ratio"]}
    return Found(rows=rows, body=body, figures=figures, data={"rounds": turns})


if __name__ == "__main__":
    main(
        "threads",
        "Threads that spin for a limited time have {alone:.2f} times the rate alone and {beside:.2f} times beside "
        "other programs",
        measure,
        smoke={"rounds": 1, "steps": 1, "depth": 1, "block": 8, "programs": 0, "names": (AS_IT_IS,)},
        threads=None,
    )
