"""Certificates against independent truths: `python -m benchmarks.approx.approx_truth` writes a record.

Least errors beside Sollya's on random problems, proofs beside a dense search in 50 digits on 1,000 random problems,
and least errors beside linear programs on a grid. The problems and the checks are those of tests/approx/test_truth.py,
with other seeds; then all of tests/approx with --full, run now or read from the files of --junit.
"""

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _record, _suites
from benchmarks._program import MissingError, main
from benchmarks._record import Found

PATH = _record.ROOT / "tests" / "approx" / "test_truth.py"


def checks() -> Any:
    """The module of the tests."""
    spec = importlib.util.spec_from_file_location("test_truth", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def beside_sollya(truth: Any, count: int) -> tuple[str, float]:
    """The largest relative difference of the least errors."""
    rng = np.random.default_rng(20260101)
    problems = [truth.random_problem(rng) for _ in range(count)]
    theirs = truth.ask_sollya(problems)
    if len(theirs) != count:
        raise RuntimeError(f"Sollya answered {len(theirs)} of {count} problems.")
    pairs = [(truth.solve(p).error, v) for p, v in zip(problems, theirs, strict=True)]
    return f"Sollya (quality 1b-70), {count} problems: largest relative difference", max(
        abs(a / b - 1) for a, b in pairs
    )


def in_fifty_digits(truth: Any, count: int) -> tuple[str, float]:
    """How many proofs do not hold."""
    failed = 0
    for seed in range(count):
        try:
            truth.check(seed, points=120)
        except AssertionError as problem:
            failed += 1
            print(f"seed {seed}: {problem}")
    return f"dense search in 50 digits, {count} problems: proofs that do not hold", failed


def beside_linear_programs(truth: Any, count: int) -> tuple[str, float]:
    """How many least errors disagree with a linear program on a grid."""
    failed = 0
    for seed in range(1000, 1000 + count):
        try:
            truth.test_the_least_error_agrees_with_a_linear_program_on_a_grid(seed)
        except AssertionError as problem:
            failed += 1
            print(f"seed {seed}: {problem}")
    return f"linear programs on a grid, {count} problems: disagreements", failed


def measure(
    *, sollya: int = 60, linear: int = 100, fifty: int = 1000, junit: tuple[Path, ...] = (), files: str = "test_*.py"
) -> Found:
    """Numbers of problems beside each truth; ``junit`` are files of a run of tests/approx made already."""
    if shutil.which("sollya") is None:
        raise MissingError("Sollya is not installed (apt install sollya)")
    truth, rows = checks(), []
    for task, number in ((beside_sollya, sollya), (beside_linear_programs, linear), (in_fifty_digits, fifty)):
        start = time.process_time()
        what, figure = task(truth, number)
        rows.append({"truth": what, "figure": float(figure), "processor seconds": time.process_time() - start})
        print(rows[-1], flush=True)
    found = _suites.of("approx", junit=junit, files=files)
    failed = _suites.failures(found)
    body = f"{_record.show(rows, 2)}\n\nThe tests in full:\n\n{_suites.by_file(found)}\n\n"
    body += f"Failed: {', '.join(failed) or 'none'}."
    figures = {"apart": rows[0]["figure"], "broken": int(rows[1]["figure"] + rows[2]["figure"]), "failed": len(failed)}
    return Found(rows=rows, body=body, figures=figures, data={"tests": [t._asdict() for t in found]})


if __name__ == "__main__":
    main(
        "approx_truth",
        "Least errors are at most {apart:.1e} from Sollya's, {broken} proofs disagree with other truths, and {failed} "
        "tests fail",
        measure,
        smoke={"sollya": 2, "linear": 2, "fifty": 3, "files": ""},
    )
