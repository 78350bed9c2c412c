"""What waiting threads cost: training alone, and beside two busy programs, by how long OpenMP's threads spin.

    python benchmarks/threads.py            # writes benchmarks/records/<date>_threads.{md,json}; about half an hour
    python benchmarks/threads.py --smoke    # small

OpenMP's threads wait for the next piece of work by spinning. Alone on a machine that is the fastest way to wait.
Beside other programs a spinning thread holds the core that the thread it waits for would need. Each setting of the
environment runs in a process of its own, since the library reads it once, when torch loads: the default model of
``spectrain train`` (depth 4, float32), Muon's step included, on as many threads as there are cores. A round runs every
setting alone and then every setting beside one busy loop a core. Compared are the ratios to "as it is" of a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import _record

from spectrain._spinning import KNOWN, SPINS

SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
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


def measured(rounds: int, sizes: list[int], cores: int) -> list[dict[str, dict[str, float]]]:
    """For each round, tokens a second of every setting alone and beside busy loops, in turns."""
    found = []
    for at in range(rounds):
        names = list(SETTINGS)[at % len(SETTINGS) :] + list(SETTINGS)[: at % len(SETTINGS)]  # nobody is always first
        alone = {name: rate(SETTINGS[name], sizes) for name in names}
        with busy(cores):
            beside = {name: rate(SETTINGS[name], sizes) for name in names}
        found.append({"alone": alone, "beside": beside})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    cores = os.cpu_count() or 1
    rounds = measured(1, [2, 1, 16, cores], cores) if asked.smoke else measured(asked.rounds, [4, 4, 256, cores], cores)
    rows = []
    for name in SETTINGS:
        row = [f"{name} (taken)" if SETTINGS[name] == {"GOMP_SPINCOUNT": SPINS} else name]
        for where in ("alone", "beside"):
            ratios = [one[where][name] / one[where]["as it is"] for one in rounds]
            rates = [one[where][name] for one in rounds]
            row += [f"{statistics.median(rates):,.0f}", f"{statistics.median(ratios):.2f}",
                    f"{min(ratios):.2f} to {max(ratios):.2f}"]  # fmt: skip
        rows.append(row)
    header = ["setting", "alone: tokens/s", "ratio to as it is", "of all rounds",
              f"beside {cores} busy programs: tokens/s", "ratio to as it is", "of all rounds"]  # fmt: skip
    body = (
        f"{_record.table(header, rows)}\n\nMedians over {len(rounds)} rounds; a round runs every setting in turn, "
        f"alone and then beside {cores} endless loops, {cores} threads each. Ratios are those of a round, so that what "
        "else the machine was doing touches both sides alike. It was shared with other work while this was measured: "
        'the rates "alone" are lower bounds, and say less than the ratios do.'
    )
    options = {"folder": Path(tempfile.gettempdir()) / "records"} if asked.smoke else {}
    claim = "Threads that spin for a limited time keep most of their speed beside other programs"
    written = _record.write("threads", claim=claim, body=body, data={"rounds": rounds}, **options)
    print(written.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
