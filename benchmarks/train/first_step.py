"""What comes before the first step of ``spectrain train``: imports, reading, choices, the first validation, the step.

    python -m benchmarks.train.first_step    # some minutes, on quiet cores

The command runs in a process of its own until its first step is on the screen, in turns: with what earlier runs have
left in the cache folder, with an empty one, and beside both a process that imports torch and nothing else, which no
change of ours can undercut. Seconds are those since the process was asked for; processor seconds are those of all its
threads. Where a part ends is told by the line that it prints.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._program import main
from benchmarks._record import Found, show

PARTS = {
    "run folder:": "interpreter, flags and imports",
    "read in ": "text to tokens",
    "model: ": "choices measured, model and optimizer",
    "  validation at step 0": "the first validation",
    "step 1": "the first step",
}
"""How the line begins that ends a part."""
TORCH, KNOWN, EMPTY = "import torch", "train", "train, nothing in the cache"
ALONE = "import sys, time, torch; print('step 1', time.time() - float(sys.argv[1]), time.process_time())"
COMMAND = """
import os, sys, time
from spectrain.cli import main
from spectrain.train._run.progress import Progress

def say(self, text=""):
    print(text.replace(chr(10), " "), time.time() - float(sys.argv[1]), time.process_time(), flush=True)
    if text.startswith("step 1"):
        os._exit(0)

Progress.say = say
main(["train", *sys.argv[2:]])
"""


@contextmanager
def environment(name: str) -> Iterator[dict[str, str]]:
    """This process's, as a user's would be, with an empty cache folder where the name says so."""
    kept = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    with tempfile.TemporaryDirectory() as empty:
        yield kept | {"PYTHONWARNINGS": "ignore"} | ({"XDG_CACHE_HOME": empty} if name == EMPTY else {})


def one(name: str, flags: list[str]) -> dict[str, tuple[float, float]]:
    """When each part of a process was over: seconds since it was asked for, and processor seconds."""
    with environment(name) as variables, tempfile.TemporaryDirectory() as folder:
        words = [] if name == TORCH else ["--out-dir", str(Path(folder, "run")), *flags]
        call = [sys.executable, "-c", ALONE if name == TORCH else COMMAND, str(time.time()), *words]
        lines = subprocess.run(call, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    ends = {}
    for line in lines:
        *_, wall, processor = line.split(" ")
        ends |= {part: (float(wall), float(processor)) for start, part in PARTS.items() if line.startswith(start)}
    return ends


def measure(*, rounds: int = 7, warm: int = 1, flags: tuple[str, ...] = ()) -> Found:
    """Each case ``rounds`` times, after ``warm`` that do not count; ``flags`` are those of the command."""
    cases = (TORCH, KNOWN, EMPTY)
    turns = [{name: one(name, list(flags)) for name in cases} for _ in range(warm + rounds)][warm:]
    rows, total = [], {}
    for name in cases:
        ends = {
            part: [statistics.median(turn[name][part][i] for turn in turns) for i in (0, 1)] for part in turns[0][name]
        }
        before = [0.0, 0.0]
        for part, (wall, processor) in ends.items():
            told = part if name != TORCH else "all"
            rows.append({"case": name, "part": told, "seconds": wall - before[0], "processor": processor - before[1]})
            before = [wall, processor]
        rows.append({"case": name, "part": "together", "seconds": before[0], "processor": before[1]})
        total[name] = before
    figures = {
        "known": total[KNOWN][0], "processor": total[KNOWN][1], "empty": total[EMPTY][0], "torch": total[TORCH][0],
    }  # fmt: skip
    body = f"{show(rows)}\n\nMedians over {rounds} rounds; a part is the difference between two of them."
    return Found(rows=rows, body=body, figures=figures, data={"rounds": turns})


if __name__ == "__main__":
    main(
        "first_step",
        "The first step comes {known:.1f} s after the command ({processor:.1f} s of processor time), {empty:.1f} s "
        "with an empty cache; to import torch alone takes {torch:.1f} s",
        measure,
        smoke={"rounds": 1, "warm": 0, "flags": ("--depth=1", "--width=32", "--tokenizer=bytes", "--eval-tokens=64")},
        threads=None,
    )
