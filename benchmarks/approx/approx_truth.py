"""Certificates against independent truths: `python benchmarks/approx_truth.py` writes a record.

Least errors beside Sollya's on random problems, proofs beside a dense search in 50 digits on 1,000 random problems,
and least errors beside linear programs on a grid. The problems and the checks are those of tests/approx/test_truth.py,
with other seeds; then all of tests/approx with --full, run now or read from JUnit files that are named.
"""

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import _suites
import numpy as np
from _record import table, write

PATH = Path(__file__).parents[1] / "tests" / "approx" / "test_truth.py"


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


def main() -> None:
    """Run all and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("junit", nargs="*", type=Path, help="JUnit files of a run of tests/approx made already")
    asked = parser.parse_args()
    truth, rows = checks(), []
    data: dict[str, Any] = {}
    for task, number in ((beside_sollya, 60), (beside_linear_programs, 100), (in_fifty_digits, asked.count)):
        start = time.process_time()
        what, figure = task(truth, number)
        rows.append([what, f"{figure:.2g}", f"{time.process_time() - start:.0f}"])
        data[what] = figure
        print(rows[-1], flush=True)
    found = _suites.of("approx", asked.junit)
    suites = table(["suite", "tests", "cases", "seconds", "passed", "failed", "skipped"], _suites.by_file(found))
    failed = [f"{t.file}::{t.name}" for t in found if t.outcome == "failed"]
    body = table(["truth", "figure", "processor seconds"], rows)
    body += f"\n\nThe tests in full:\n\n{suites}\n\nFailed: {', '.join(failed) or 'none'}."
    data["tests"] = [t._asdict() for t in found]
    print(write("approx_truth", claim="Least errors and proofs agree with independent truths", body=body, data=data))


if __name__ == "__main__":
    main()
