"""What the large suites of a layer found, read from the JUnit files that pytest writes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]


class Test(NamedTuple):
    """One test: how many cases it says it went through, how long it took, and how it ended."""

    file: str
    name: str
    cases: int
    seconds: float
    outcome: str


def run(layer: str, folder: Path) -> list[Path]:
    """Run each test file of a layer with ``--full``, one process after the other; return the JUnit files."""
    written = []
    for file in sorted((ROOT / "tests" / layer).glob("test_*.py")):
        written.append(folder / f"{file.stem}.xml")
        command = [sys.executable, "-m", "pytest", "-q", "--full", f"--junitxml={written[-1]}", str(file)]
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


def by_file(found: Iterable[Test]) -> list[list[object]]:
    """Rows: file, tests, cases, seconds, passed, failed, skipped."""
    rows: dict[str, list[Test]] = {}
    for test in found:
        rows.setdefault(test.file, []).append(test)
    return [
        [
            file,
            len(group),
            f"{sum(t.cases for t in group):,}",
            f"{sum(t.seconds for t in group):.0f}",
            *(sum(t.outcome == wanted for t in group) for wanted in ("passed", "failed", "skipped")),
        ]
        for file, group in rows.items()
    ]


def many(found: Iterable[Test]) -> list[list[object]]:
    """Rows of the tests that go through many cases: name, cases, seconds, outcome."""
    return [[t.name, f"{t.cases:,}", f"{t.seconds:.0f}", t.outcome] for t in found if t.cases > 1]


def of(layer: str, written: list[Path]) -> list[Test]:
    """The tests in ``written``, or, where that is empty, those of a run now."""
    if written:
        return tests(written)
    with tempfile.TemporaryDirectory() as folder:
        return tests(run(layer, Path(folder)))
