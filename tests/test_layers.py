"""Riders to the import contracts: what loads without torch, and how fast help answers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spectrain"


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in ``sys.modules`` of a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


LIGHT = {
    "approx": "from spectrain import approx; approx.sign_schedule(0.1, steps=2)",
    "report": "from spectrain import report; report.write",
    "config": "import spectrain.train.config",
    "drawing": "import spectrain._drawing",
    "files": "import spectrain._files.read, spectrain._files.write",
    "gallery": "import importlib, pkgutil, spectrain.gallery as g\n"
    "for m in pkgutil.iter_modules(g.__path__, 'spectrain.gallery.'): importlib.import_module(m.name)",
}


@pytest.mark.parametrize("statement", LIGHT.values(), ids=LIGHT)
def test_starts_without_torch(statement):
    assert "torch" not in loaded_by(statement)


def test_help_loads_nothing_heavy():
    assert not {"torch", "numpy", "scipy", "plotly", "tyro", "rich"} & loaded_by(
        "from spectrain.cli import main; main(['--help'])"
    )


def test_the_check_sees_torch():
    assert "torch" in loaded_by("import torch")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_no_relative_imports_so_that_arrows_are_visible(file):
    assert not re.search(r"^\s*from \.", file.read_text(encoding="utf-8"), re.MULTILINE)


def _named(text: str) -> list[tuple[str, list[str]]]:
    """Files of the numbered walks, each with the names that follow it up to the next file."""
    steps = re.findall(r"^\d\. .*(?:\n   .*)*", text, re.MULTILINE)
    parts = [
        part for step in steps for part in re.split(r"(?=`[a-z_/]+\.py`)", step) if re.match(r"`[a-z_/]+\.py`", part)
    ]
    return [(part.split("`")[1], re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)(?:\(t\))?`", part)) for part in parts]


def _defined(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
    return found


def test_the_walks_of_the_architecture_page_lead_where_they_say():
    steps = _named((PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(steps) > 25
    for file, names in steps:
        assert (PACKAGE / file).is_file(), file
        for name in names:
            assert set(name.split(".")) - {"error"} <= _defined(PACKAGE / file) or name == "TrainConfig", (file, name)


def test_the_check_of_walks_sees_a_wrong_name():
    assert _named("1. `optim/_muon.py`: `Muon.step`, `_no_such`.\n") == [("optim/_muon.py", ["Muon.step", "_no_such"])]
    assert "_no_such" not in _defined(PACKAGE / "optim" / "_muon.py")
