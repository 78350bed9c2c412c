"""Each layer's door: what type checkers read is what users get."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spectrain"
LAYERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if "door(__name__)" in path.read_text())


def promised(layer: str) -> list[str]:
    """Names that a type checker sees at a door."""
    text = (PACKAGE / layer / "__init__.py").read_text(encoding="utf-8")
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and n.module != "typing"]
    return sorted(a.asname for n in imports for a in n.names if a.asname)


def test_the_layers_are_those_with_a_door():
    assert set(LAYERS) >= {"approx", "data", "lowrank", "matfun", "nn", "objectives", "optim", "report", "train"}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_name_of_a_door_is_there_and_documented(layer):
    module = importlib.import_module(f"spectrain.{layer}")
    assert promised(layer) == dir(module)
    for name in promised(layer):
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, f"{layer}.{name} has no docstring"


@pytest.mark.parametrize("layer", LAYERS)
def test_an_unknown_name_is_an_attribute_error_that_lists_the_names(layer):
    module = importlib.import_module(f"spectrain.{layer}")
    with pytest.raises(AttributeError, match="it has:"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_bears_the_name_of_a_public_function(layer):
    """``import spectrain.matfun.msign`` would put the module in the place of the function."""
    modules = {path.stem for path in (PACKAGE / layer).glob("*.py")} | {p.name for p in (PACKAGE / layer).glob("*/")}
    assert not modules & set(promised(layer))


def test_a_name_is_loaded_when_it_is_asked_for_and_not_before():
    code = (
        "import sys; from spectrain import matfun; a = 'spectrain.matfun._norms' in sys.modules; "
        "matfun.spectral_norm; print(a, 'spectrain.matfun._norms' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_door_without_its_source_says_so(monkeypatch):
    from spectrain import matfun
    from spectrain._door import door

    monkeypatch.setattr(type(matfun.__spec__.loader), "get_source", lambda self, name: None)
    with pytest.raises(ImportError, match="not here"):
        door("spectrain.matfun")
