"""Riders to the import contracts: what loads without torch, and how fast help answers."""

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
