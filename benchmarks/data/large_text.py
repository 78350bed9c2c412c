"""Text larger than memory: what preparing it costs, and how soon and in what memory a run on it begins.

    python -m benchmarks.data.large_text

Text of ``megabytes`` is generated, half of it one file, half JSON lines of about two kilobytes each. ``spectrain
prepare`` tokenizes it with ``workers`` processes, then ``spectrain train`` makes ``steps`` steps on the shards with a
small model and judges it at the end by the default amount of held-out text. What prepared it is kept: called again, the
program trains on it. Seconds are those of a clock; beside them, those of the processor, which do not count what other
programs took. Memory is what the system says of a process when it has ended (ru_maxrss): the most that it had at once,
pages of mapped files included, of the largest process of a command.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found

MODEL = (
    "--depth", "1", "--block", "128", "--eval-tokens", "4096", "--eval-interval", "1000", "--spectrum-interval", "0",
    "--sample-tokens", "0", "--autocast", "off", "--muon-dtype", "float32", "--log-interval", "1",
)  # fmt: skip
"""Little beside the text: the model of this record is not the point."""
_CHUNK = 20_000  # lines written at once
_DOCUMENT = 30  # lines of one in JSON


def lines() -> list[str]:
    """A hundred thousand lines of a made-up language in which some words are frequent."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 10))) for _ in range(20_000)]
    frequent = list(itertools.accumulate(1 / (i + 10) for i in range(len(words))))
    return [" ".join(draw.choices(words, cum_weights=frequent, k=11)) + ".\n" for _ in range(100_000)]


def chunks(size: int, seed: int) -> Iterator[list[str]]:
    """Lines of about ``size`` bytes in all, some at a time."""
    known, draw, written = lines(), random.Random(seed), 0
    while written < size:
        chunk = draw.choices(known, k=_CHUNK)
        written += sum(map(len, chunk))
        yield chunk


def generate(folder: Path, size: int) -> tuple[Path, Path]:
    """Half of the text as one file, half as JSON lines; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    book, rows = folder / "book.txt", folder / "rows.jsonl"
    if not rows.exists():
        with open(book, "w", encoding="utf-8") as out:
            for chunk in chunks(size // 2, 1):
                out.write("".join(chunk))
        with open(folder / "partial", "w", encoding="utf-8") as out:
            for chunk in chunks(size // 2, 2):
                for start in range(0, len(chunk), _DOCUMENT):
                    out.write(json.dumps({"text": "".join(chunk[start : start + _DOCUMENT])}) + "\n")
        (folder / "partial").rename(rows)
    return book, rows


def run(words: Sequence[object], *, until: Sequence[str] = ()) -> dict[str, Any]:
    """Run a command of ours: its lines, seconds until each beginning of a line came and in all, memory in MiB.

    Seconds are of the clock and, behind "cpu", of the processor.
    """
    began, said, seconds = time.perf_counter(), [], {}
    command = [sys.executable, "-m", "spectrain", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout
    with process.stdout as lines:
        for line in lines:
            said.append(line.rstrip())
            for word in until:
                if line.startswith(word):
                    seconds.setdefault(word, time.perf_counter() - began)
                    seconds.setdefault(f"cpu {word}", processor_seconds(process.pid))
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said[-3:]}")
    whole = {"seconds": time.perf_counter() - began, "cpu": used.ru_utime + used.ru_stime}
    return {"said": said, "until": seconds, **whole, "mib": used.ru_maxrss / 1024}


def processor_seconds(pid: int) -> float:
    """What a process that still runs has had of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, or is measured now."""
    if not file.exists():
        file.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def measure(*, runs: Path, megabytes: int = 2000, workers: int = 1, steps: int = 30) -> Found:
    """Prepare the text and train on it."""
    text = generate(runs / f"text-{megabytes}", megabytes * 10**6)
    size = sum(path.stat().st_size for path in text) / 1e6
    out, trained = runs / f"shards-{megabytes}", runs / f"run-{time.time():.0f}"
    words = ["prepare", "--data", *text, "--out-dir", out, "--workers", workers]
    prepared = kept(runs / f"prepared-{megabytes}.json", lambda: run(words))
    settings = [*MODEL, "--max-steps", steps, "--threads", 1]
    first = run(
        ["train", "--data", out, "--out-dir", trained, *settings], until=("read in", "step 1/", f"step {steps}/")
    )
    row = {
        "text in MB": size,
        "prepare: seconds": prepared["seconds"],
        "of the processor": prepared["cpu"],
        "MB a second of the processor": size / prepared["cpu"],
        "prepare: MiB": prepared["mib"],
        "train: seconds to the text": first["until"]["read in"],
        "to the first step": first["until"]["step 1/"],
        "to the first step, of the processor": first["until"]["cpu step 1/"],
        "after the last step": first["seconds"] - first["until"][f"step {steps}/"],
        "train: MiB": first["mib"],
    }
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    told = [
        line
        for line in (*prepared["said"], *first["said"])
        if "tokens" in line and "step" not in line and "left" not in line
    ]
    body = (
        f"{_record.show([{'what': name, 'found': value} for name, value in row.items()])}\n\n"
        f"Judged at the end: {summary['validation_tokens']:,} of {summary['held_out_tokens']:,} held-out tokens. "
        "Said on the way:\n\n" + "\n".join(f"    {line.replace(str(runs), 'RUNS')}" for line in told)
    )
    figures = {
        "gigabytes": size / 1e3,
        "most": max(row["prepare: MiB"], row["train: MiB"]) / 1024,
        "first": row["to the first step"],
        "processor": row["to the first step, of the processor"],
        "rate": row["MB a second of the processor"],
    }
    return Found(rows=[row], body=body, figures=figures, data={"summary": summary})


if __name__ == "__main__":
    main(
        "large_text",
        "{gigabytes:.2f} GB of text: prepared at {rate:.2f} MB a second of a processor, the first step after "
        "{first:.1f} s ({processor:.1f} s of the processor), at most {most:.2f} GiB in any process",
        measure,
        smoke={"megabytes": 1, "steps": 2},
    )
