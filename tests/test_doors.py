"""Each layer's door: what type checkers read is what users get."""

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spectrain"
LAYERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if "door(__name__)" in path.read_text())


SEAMS = sorted(path.parent.name for path in PACKAGE.glob("*/internal.py"))
GROUND = {path.stem for path in PACKAGE.glob("_*") if path.stem.strip("_") not in ("init", "main", "pycache")}


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


@pytest.mark.parametrize("layer", SEAMS)
def test_every_name_of_a_seam_is_there_is_used_elsewhere_and_is_private_else(layer):
    """A seam is short: what no other layer takes is not in it, and what users get at the door is taken there."""
    seam = importlib.import_module(f"spectrain.{layer}.internal")
    assert seam.__doc__
    assert not set(dir(seam)) & set(promised(layer))
    for name in dir(seam):
        getattr(seam, name)
    taken = {
        name
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] != layer
        for module, name in imports(file)
        if module == f"spectrain.{layer}.internal"
    }
    assert set(dir(seam)) == taken


@functools.cache
def imports(file: Path) -> frozenset[tuple[str, str]]:
    """Module and name of each import of ours in a file, wherever in it they stand."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spectrain":
            found |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names if alias.name.startswith("spectrain.")}
    return frozenset(found)


def private(module: str, name: str, *, layer: str) -> bool:
    """Whether an import reaches behind the door of another layer; the ground floor is open to all."""
    parts = [*module.split(".")[1:], name]
    if parts[0] == layer or parts[0] in GROUND or parts == ["__version__"]:
        return False
    return any(part.startswith("_") for part in parts)


def test_no_import_passes_another_layers_door_but_through_its_seam():
    found = [
        f"{file.relative_to(PACKAGE)}: {module}.{name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for module, name in imports(file)
        if private(module, name, layer=file.relative_to(PACKAGE).parts[0])
    ]
    assert not found, "take it from the door, or from the layer's internal.py: " + ", ".join(found)


def test_benchmarks_take_from_doors_and_seams_what_these_have():
    """They measure pieces that no door has, and reach in for these alone."""
    homes = {home: str(path.relative_to(PACKAGE)) for path in PACKAGE.glob("*/*.py") for home in imports(path)
             if path.name in ("__init__.py", "internal.py")}  # fmt: skip
    found = [
        f"{file.name}: {module}.{name} stands in {homes[module, name]}"
        for file in sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))
        for module, name in imports(file)
        if private(module, name, layer="") and (module, name) in homes
    ]
    assert not found, found


def test_the_check_of_doors_sees_what_reaches_behind_them():
    behind = [
        ("spectrain.matfun._iteration.gram", "restarts"),
        ("spectrain.train._run", "claim"),
        ("spectrain.matfun", "_norms"),
        ("spectrain.matfun._norms", ""),
    ]
    open_to_all = [
        ("spectrain.matfun.internal", "restarts"),
        ("spectrain.matfun", "msign"),
        ("spectrain", "matfun"),
        ("spectrain._arrays.scale", "to_unit"),
        ("spectrain.optim._muon", "Muon"),
        ("spectrain", "_door"),
    ]
    assert [private(*name, layer="optim") for name in behind + open_to_all] == [True] * 4 + [False] * 6
