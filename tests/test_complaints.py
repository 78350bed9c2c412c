"""The table of complaints names tests that exist, and every complaint once."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/complaints.md"


def rows(text):
    """Reports and last cell of each row of the tables."""
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if line.startswith("| [")]
    return [(re.findall(r"\]\((https://[^)]+)\)", row[0]), row[-1]) for row in cells]


def defined(path):
    """Names of the test functions of a file; none where it does not exist."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def faults(text):
    """What is wrong with the page."""
    found, seen = [], set()
    for reports, cell in rows(text):
        tests = re.findall(r"`([^`]+)::([^`]+)`", cell)
        if not tests and not re.match(r"no test: .{20,}", cell):
            found.append(f"{reports}: neither a test nor a reason")
        found += [f"no {name} in tests/{file}" for file, name in tests if name not in defined(ROOT / "tests" / file)]
        found += [f"{report} stands there twice" for report in reports if report in seen]
        seen |= set(reports)
    return found


def test_every_complaint_has_a_test_that_exists_or_a_reason():
    text = PAGE.read_text(encoding="utf-8")
    assert faults(text) == []
    assert len(rows(text)) > 60


FIRST = "optim/test_complaints.py::test_naming_muon_is_muon"
WRONG = {
    "a test of another name": lambda text: text.replace(FIRST, FIRST + "_or_not"),
    "a file that does not exist": lambda text: text.replace(FIRST, FIRST.replace("complaints", "complaint")),
    "a row without a test": lambda text: text.replace(f"`{FIRST}`", "soon"),
    "a reason without reason": lambda text: text.replace(f"`{FIRST}`", "no test"),
    "the same report twice": lambda text: text + text[text.index("| [") :].splitlines()[0] + "\n",
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_the_check_rejects_a_wrong_page(spoil):
    assert faults(spoil(PAGE.read_text(encoding="utf-8")))
