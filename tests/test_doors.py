"""Each layer's door: what type checkers read is what users get."""

import ast
import functools
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spectrain"
LAYERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if "door(__name__" in path.read_text())


SEAMS = sorted(path.parent.name for path in PACKAGE.glob("*/internal.py"))
GROUND = {path.stem for path in PACKAGE.glob("_*") if path.stem.strip("_") not in ("init", "main", "pycache")}
ROOMS = sorted(
    f"{layer}.{path.stem}"
    for layer in LAYERS
    for path in (PACKAGE / layer).glob("[!_]*.py")
    if "door(__name__)" in path.read_text() and path.stem != "internal"
)
MOST = 12  # names at a door; what is asked for less often is in a room


def source(place: str) -> str:
    path = PACKAGE.joinpath(*place.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def promised(place: str) -> list[str]:
    """Names that a type checker sees at a door."""
    first = next(node for node in ast.parse(source(place)).body if isinstance(node, ast.If))
    return sorted(str(a.asname) for n in first.body if isinstance(n, ast.ImportFrom) for a in n.names)


def rooms(layer: str) -> set[str]:
    return {room.partition(".")[2] for room in ROOMS if room.startswith(layer + ".")}


def test_the_layers_are_those_with_a_door():
    assert set(LAYERS) >= {"approx", "data", "lowrank", "matfun", "nn", "objectives", "optim", "report", "train"}


@pytest.mark.parametrize("place", [*LAYERS, *ROOMS])
def test_every_name_of_a_door_is_there_and_documented(place):
    module = importlib.import_module(f"spectrain.{place}")
    assert promised(place) == dir(module)
    for name in promised(place):
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, f"{place}.{name} has no docstring"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_door_can_be_seen_at_a_glance(layer):
    assert len(set(promised(layer)) - rooms(layer)) <= MOST


@pytest.mark.parametrize("layer", LAYERS)
def test_every_room_is_reached_by_attribute(layer):
    module = importlib.import_module(f"spectrain.{layer}")
    for room in rooms(layer):
        assert getattr(module, room) is importlib.import_module(f"spectrain.{layer}.{room}")


@pytest.mark.parametrize("place", [*LAYERS, *ROOMS])
def test_an_unknown_name_is_an_attribute_error_that_lists_the_names(place):
    module = importlib.import_module(f"spectrain.{place}")
    with pytest.raises(AttributeError, match="it has:"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_bears_the_name_of_a_public_function(layer):
    """``import spectrain.matfun.msign`` would put the module in the place of the function."""
    modules = {path.stem for path in (PACKAGE / layer).glob("*.py")} | {p.name for p in (PACKAGE / layer).glob("*/")}
    assert modules & set(promised(layer)) == rooms(layer)


# What stood at the doors before they had rooms (commit 9652c41), written down by hand.
BEFORE = {
    "approx": "as_code error_curve step_curves Minimax enclose minimax equioscillates Polynomial Schedule "
    "clip_schedule step_schedule root_schedule sign_schedule",
    "data": "generator Images read_images Generated WorkerError Workers IndexStream Mixture PackedStream TokenStream "
    "validation_batches compressed_bits_per_byte DataError Document Pair read_pairs split_pairs iterate_documents "
    "read_documents split_documents Tokenizer load_tokenizer train_tokenizer",
    "matfun": "mapply mpsd mclip msoftclip mthreshold tries design msign effective_rank spectral_norm mstep polar "
    "calibrate plan mroot",
    "nn": "Attention Rotary to_latent Capture capture Statistics statistics Tap Balance Loads quantile_bias "
    "expert_loads MoE auxiliary_loss scaling_factor Penalty from_hugging_face to_hugging_face generate stream "
    "ImageTransformer LanguageModel SwiGLU initialise TextEncoder soft_topk",
    "optim": "averaging_coefficients schedule_from_coefficients weight_rms clip_grad_norm_ Matrix Muon Parametrisation "
    "mup qk_clip_ Machine plan route Schedule ScheduleLR UniformMemory spectra WeightAverage",
    "train": "compress checkpoints train polynomials Progress StopRequest principal_adapter TrainedRun load_run check "
    "compare lr_transfer Member compare_depths TrainConfig",
}
RENAMED = {"optim.Schedule": "optim.WarmupDecay", "optim.plan": "optim.ranks.plan_shards"}


@pytest.mark.parametrize("old", [f"{layer}.{name}" for layer, names in BEFORE.items() for name in names.split()])
def test_an_old_name_works_and_names_the_new_one(old):
    layer, _, name = old.partition(".")
    door = importlib.import_module(f"spectrain.{layer}")
    if name in dir(door):
        assert getattr(door, name).__name__ == name
        return
    with pytest.warns(DeprecationWarning, match=rf"spectrain\.{old} is spectrain\.{layer}\.\S+ now") as told:
        found = getattr(door, name)
    now = str(told[0].message).split(" is ")[1].split(" now")[0]
    place, _, last = now.rpartition(".")
    assert now == f"spectrain.{RENAMED[old]}" if old in RENAMED else last == name
    assert last in dir(importlib.import_module(place))
    assert getattr(importlib.import_module(place), last) is found


@pytest.mark.parametrize("layer", BEFORE)
def test_old_names_are_types_too(layer):
    """A type checker reads them beside the door: each is an import of what it is now, and none else is there."""
    body = ast.parse(source(layer)).body
    old = [node for node in body if isinstance(node, ast.If)][1]
    read = {a.asname: a.name for n in old.body if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
    read |= {n.targets[0].id: ast.unparse(n.value) for n in old.body if isinstance(n, ast.Assign)}  # under another name
    moved = next(ast.literal_eval(n.value) for n in body if isinstance(n, ast.Assign) and n.targets[0].id == "_MOVED")
    assert read == {name: now.rpartition(".")[2] for name, now in moved.items()}


def test_a_door_opens_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "ours.zip", "w") as archive:
        for file in PACKAGE.rglob("*.py"):
            archive.write(file, file.relative_to(PACKAGE.parent))
    code = "from spectrain import approx; print(approx.__file__, approx.minimax.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "ours.zip")},
    )  # fmt: skip
    assert "ours.zip" in done.stdout
    assert done.stdout.split()[1] == "minimax"


def test_an_old_name_is_warned_of_where_it_is_used(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from spectrain.optim import Schedule\nfrom spectrain import data\n\ndata.Pair\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "always", mine], capture_output=True, text=True, check=True)
    assert f"{mine}:1: DeprecationWarning" in done.stderr
    assert f"{mine}:4: DeprecationWarning" in done.stderr


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
