"""Each layer's door: what type checkers read is what users get."""

import ast
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spectrain"
LAYERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def declared(layer: str) -> dict[str, str]:
    """Names that a door imports under TYPE_CHECKING, with the file each comes from."""
    tree = ast.parse((PACKAGE / layer / "__init__.py").read_text(encoding="utf-8"))
    branch = next((n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"), None)
    imports = [n for n in ast.walk(branch) if isinstance(n, ast.ImportFrom)] if branch else []
    return {
        alias.asname or alias.name: str(n.module).removeprefix(f"spectrain.{layer}.")
        for n in imports
        for alias in n.names
    }


def served(layer: str) -> dict[str, str]:
    """Names that a door's ``door(...)`` call serves, with the file each comes from."""
    tree = ast.parse((PACKAGE / layer / "__init__.py").read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "door"]
    return ast.literal_eval(calls[0].args[1]) if calls else {}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_two_lists_of_a_door_are_equal(layer):
    assert declared(layer) == served(layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_name_of_a_door_is_there_and_documented(layer):
    module = importlib.import_module(f"spectrain.{layer}")
    for name in served(layer):
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, f"{layer}.{name} has no docstring"
    assert dir(module) == sorted(served(layer)) or not served(layer)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if served(layer)])
def test_an_unknown_name_is_an_attribute_error_that_lists_the_names(layer):
    module = importlib.import_module(f"spectrain.{layer}")
    with pytest.raises(AttributeError, match="it has:"):
        module.no_such_name  # noqa: B018


def test_the_check_sees_a_door_that_promises_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text(
        "if TYPE_CHECKING:\n    from spectrain.bad._a import f as f\n__getattr__ = door(__name__, {'g': '_a'})\n"
    )
    assert declared("bad") != served("bad")
