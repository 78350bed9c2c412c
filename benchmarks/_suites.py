"""What the large suites of a layer found, read from the JUnit files that pytest writes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks import _record
from benchmarks._record import ROOT


class Test(NamedTuple):
    """One test: how many cases it says it went through, how long it took, and how it ended."""

    file: str
    name: str
    cases: int
    seconds: float
    outcome: str


def run(layer: str, folder: Path, files: str, words: str) -> list[Path]:
    """Run each test file of a layer with ``--full``, one process after the other; return the JUnit files.

    ``files`` is a pattern of their names, none for "", and ``words`` chooses tests as ``-k`` does.
    """
    written = []
    for file in sorted((ROOT / "tests" / layer).glob(files)) if files else []:
        written.append(folder / f"{file.stem}.xml")
        options = ["-q", "--full", "-p", "no:cacheprovider", f"--junitxml={written[-1]}", "-k", words]
        command = [sys.executable, "-m", "pytest", *options, str(file)]
        subprocess.run(command, cwd=ROOT, check=False)  # a failure is part of what is recorded
    return written


def outcome(case: ElementTree.Element) -> str:
    """Failed, skipped or passed."""
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def tests(files: Iterable[Path]) -> list[Test]:
    """All tests of some JUnit files; one that was run again counts as it ended last."""
    found: dict[tuple[str, str], Test] = {}
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):  # pytest wrote it just now
            noted = case.find("properties/property[@name='cases']")
            cases = 1 if noted is None else int(noted.attrib["value"])
            module = case.attrib["classname"].rpartition(".")[2]
            name, seconds = case.attrib["name"], float(case.attrib["time"])
            found[module, name] = Test(module, name, cases, seconds, outcome(case))
    return list(found.values())


def failures(found: Iterable[Test]) -> list[str]:
    """The tests that failed."""
    return [f"{test.file}::{test.name}" for test in found if test.outcome == "failed"]


def by_file(found: Iterable[Test]) -> str:
    """A table: file, tests, cases, seconds, passed, failed, skipped."""
    rows: dict[str, list[Test]] = {}
    for test in found:
        rows.setdefault(test.file, []).append(test)
    cells = [
        [
            file,
            len(group),
            f"{sum(t.cases for t in group):,}",
            f"{sum(t.seconds for t in group):.0f}",
            *(sum(t.outcome == wanted for t in group) for wanted in ("passed", "failed", "skipped")),
        ]
        for file, group in rows.items()
    ]
    return _record.table(["suite", "tests", "cases", "seconds", "passed", "failed", "skipped"], cells)


def many(found: Iterable[Test]) -> str:
    """A table of the tests that go through many cases: name, cases, seconds, outcome."""
    cells = [[t.name, f"{t.cases:,}", f"{t.seconds:.0f}", t.outcome] for t in found if t.cases > 1]
    return _record.table(["test of many cases", "cases", "seconds", "outcome"], cells)


def of(layer: str, *, junit: Sequence[Path], files: str, words: str = "") -> list[Test]:
    """The tests in the JUnit files of a run made already, or, where there are none, those of a run now."""
    if junit:
        return tests(junit)
    with tempfile.TemporaryDirectory() as folder:
        return tests(run(layer, Path(folder), files, words))
