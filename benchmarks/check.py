"""All that measures speed, in small: `make bench-check`, about a minute of processor time.

    OMP_NUM_THREADS=1 python -m benchmarks.check

Runs `--check` of every program that has a ``check=``, in the order of their paths, and prints its ratios beside the
recorded ones (`_compare` says which are comparable), with the seconds of processors that it took. A program that fails
is named, with its error, and the others still run; the exit code is 1 then. Nothing is recorded, and no ratio is
judged: a mark shows where one differs by more than a third. Ratios are medians of few rounds.

torch and spectrain are loaded once. Each program is a fork of the process that loaded them: the C library keeps memory
once a large tensor was freed, and a peer that pays for fresh pages in its record would not pay behind another program.
"""

import contextlib
import io
import multiprocessing
import os
import re
import runpy
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import _program  # noqa: F401  # loads what all programs need, before the first of them
from benchmarks._compare import MARK

BUDGET = 8.0
"""Seconds that a program should need at most; one that needs more says so."""


def programs(folder: Path = Path(__file__).parent) -> list[Path]:
    """The programs that have small settings."""
    asked = re.compile(r"^ {8}check=", re.MULTILINE)
    return sorted(p for p in folder.glob("*/[a-z]*.py") if asked.search(p.read_text(encoding="utf-8")))


def spent() -> float:
    """Seconds of processors so far, of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def run(path: Path) -> tuple[str, bool]:
    """What a program prints, and whether it ended well."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(path, there))
    child.start()
    there.close()
    try:
        found: tuple[str, bool] = here.recv()
    except EOFError:  # it was killed, and could not say why
        child.join()
        return f"exit code {child.exitcode}", False
    child.join()
    return found


def _run(path: Path, answer: Connection) -> None:
    printed = io.StringIO()
    sys.argv = [str(path), "--check"]
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(path), run_name="__main__")
    except (Exception, SystemExit):
        answer.send((traceback.format_exc(limit=-3), False))
    else:
        answer.send((printed.getvalue(), True))


def main(paths: Sequence[Path]) -> int:
    """Run them all; 1 where one failed."""
    failed, moved = [], {}
    for path in paths:
        before = spent()
        words, well = run(path)
        took = spent() - before
        over = f", more than {BUDGET:g}" if took > BUDGET else ""
        title, _, lines = words.rstrip().partition("\n") if well else (f"{path.stem} FAILED", "", words.rstrip())
        print(f"== {title} ({took:.1f} s{over})", *lines.splitlines(), sep="\n", flush=True)
        failed += [] if well else [path.stem]
        moved |= {path.stem: words.count(MARK)} if MARK in words and well else {}
    which = ", ".join(f"{name} {count}" for name, count in moved.items()) or "none"
    print(f"{len(paths)} programs, {spent():.0f} s of processor time; moved by more than a third ({MARK}): {which}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(programs()))
