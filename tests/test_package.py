"""What is installed: the optimizer stands on few packages, and whoever misses another one is told its extra."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from spectrain._extras import EXTRAS

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HIDE = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS)})); "


def run_without_extras(code):
    """A fresh process in which no package of any extra can be imported."""
    return subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True, timeout=300)


def names(requirements):
    return {item.partition(">")[0].lower() for item in requirements}


def test_the_optimizer_needs_torch_numpy_flint_and_names_for_shapes_only():
    assert names(PROJECT["dependencies"]) == {"torch", "numpy", "python-flint", "jaxtyping"}
    found = run_without_extras(f"import runpy; runpy.run_path({str(HERE / 'optimizer_only.py')!r})")
    assert found.returncode == 0, found.stderr
    assert "a step of Muon" in found.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from spectrain import lowrank; lowrank.svd", "spectrain.lowrank.svd needs SciPy"),
        ("from spectrain.data import train_tokenizer", "spectrain.data.train_tokenizer needs tokenizers"),
        ("from spectrain import data; data.read_images()", "on the digits that scikit-learn ships, needs scikit-learn"),
        ("from spectrain.cli import main; sys.exit(main(['report', 'x']))", "error: spectrain report needs tyro"),
        ("from spectrain.cli import main; sys.exit(main(['train', '--help']))", "error: spectrain train needs "),
    ],
)
def test_a_missing_package_is_named_with_what_wants_it_and_its_extra(code, said):
    found = run_without_extras(code)
    assert found.returncode == (2 if "cli" in code else 1)
    assert said in found.stderr
    extra = next(extra for package, extra in EXTRAS.values() if f"{package}, which is not" in found.stderr)
    assert f"pip install 'spectrain[{extra}]'" in found.stderr.splitlines()[-1]


def test_every_extra_that_is_named_brings_its_package():
    extras = PROJECT["optional-dependencies"]
    for package, extra in EXTRAS.values():
        assert package.lower() in names(extras[extra])
    assert {"spectrain[scipy]"} <= names(extras["train"])
    assert {"spectrain[train]"} <= names(extras["dev"])
