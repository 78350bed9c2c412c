"""Type checkers know what comes back and which modes there are; at run time a wrong mode is a tuned ValueError."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spectrain import approx, lowrank, matfun, objectives, optim
from spectrain import nn as layers
from spectrain.approx import _code, _schedule
from spectrain.lowrank import _cr
from spectrain.lowrank._columns.rules import RULES
from spectrain.matfun import _clip, _msign, _norms
from spectrain.nn._experts import balance, penalty, router
from spectrain.nn._models import generation
from spectrain.objectives import _meanflow
from spectrain.optim._step import scale, settings
from spectrain.optim._variants.variants import BY_NAME

ROOT = Path(__file__).parents[1]
USER = ROOT / "tests" / "typed_user.py"
TABLES = {
    "matfun.SignMethod": _msign._METHODS,
    "matfun.ClipMethod": _clip._METHODS,
    "matfun.RankKind": ("entropy", *_norms._KINDS),
    "matfun.Side": ("left", "right"),
    "approx.Dtype": _schedule.DTYPES,
    "approx.RootDtype": ("float64", "float32"),
    "approx.Framework": _code._HEADS,
    "lowrank.ColumnRule": RULES,
    "lowrank.TermRule": (*_cr.METHODS, "tuples"),
    "nn.Activation": router.ACTIVATIONS,
    "nn.Select": ("top_k", "threshold"),
    "nn.BalanceRule": balance.RULES,
    "nn.StepRule": ("sign", "rms"),
    "nn.PenaltyKind": penalty._LOSS,
    "nn.PenaltyScope": ("batch", "sequence", "global"),
    "nn.GenerationForm": generation._FORMS,
    "objectives.Objective": _meanflow.OBJECTIVES,
    "objectives.Law": ("logit-normal", "uniform"),
    "optim.Scale": (*scale.SCALES, *scale.ALIASES),
    "optim.Decay": settings.DECAYS,
    "optim.VariantName": BY_NAME,
    "optim.BoundBy": settings.BOUNDS,
    "optim.ComputeDtype": settings.DTYPES,
}
"""What a mode is checked against when it is used."""


def literals(layer):
    """The names of each mode as type checkers read them."""
    tree = ast.parse((ROOT / "spectrain" / layer / "_modes.py").read_text(encoding="utf-8"))
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    return {f"{layer}.{node.targets[0].id}": ast.literal_eval(node.value.slice) for node in branch.body}


@pytest.mark.parametrize("layer", ["approx", "matfun", "lowrank", "nn", "objectives", "optim"])
def test_checkers_know_the_modes_that_there_are(layer):
    told = literals(layer)
    assert told.keys() == {name for name in TABLES if name.startswith(layer)}
    for name, modes in told.items():
        assert sorted(modes) == sorted(TABLES[name]), name


X = torch.eye(3)
REFUSED = {
    "msign": lambda: matfun.msign(X, steps=5, method="newton"),
    "mclip": lambda: matfun.mclip(X, 0, 1, method="qdwh"),
    "effective_rank": lambda: matfun.effective_rank(X, kind="erank"),
    "mroot": lambda: matfun.mroot(X, 2, times=X, side="middle"),
    "cur": lambda: lowrank.cur(X, rank=1, method="best"),
    "cr": lambda: lowrank.cr(X, X, count=1, method="best"),
    "interpolative": lambda: lowrank.interpolative(X, rank=1, method="best"),
    "as_code": lambda: approx.as_code(approx.sign_schedule(0.1, steps=2), "tensorflow"),
    "sign_schedule": lambda: approx.sign_schedule(0.1, steps=2, dtype="half"),
    "root_schedule": lambda: approx.root_schedule(2, lower=0.1, dtype="double"),
    "activation": lambda: layers.experts.MoE(8, experts=4, hidden=8, top_k=2, activation="tanh"),
    "select": lambda: layers.experts.MoE(8, experts=4, hidden=8, top_k=2, select="all"),
    "balance": lambda: layers.experts.MoE(8, experts=4, hidden=8, top_k=2, balance="loss"),
    "a step of the bias": lambda: balance.loss_free_step(
        torch.zeros(3), torch.tensor([8, 2, 2]), tokens=6, top_k=2, rule="quantile"
    ),
    "penalty": lambda: layers.experts.Penalty(kind="cubed"),
    "scope": lambda: layers.experts.Penalty(scope="world"),
    "objective": lambda: objectives.MeanFlow(lambda x, r, t: x, objective="score"),
    "law": lambda: objectives.MeanFlow(lambda x, r, t: x, law="normal")(torch.zeros(2, 2)),
    "scale": lambda: optim.Muon(nn.Linear(2, 2, bias=False), scale="sqrt"),
    "decay": lambda: optim.Muon(nn.Linear(2, 2, bias=False), decay="coupled"),
    "variant": lambda: optim.Muon(nn.Linear(2, 2, bias=False), variant="soap"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_a_mode_that_is_none_gets_the_tuned_message_at_run_time(call):
    with pytest.raises(
        ValueError, match=r"must be one of|must be \"|must be '|must be torch|no variant|variant must|knows the"
    ):
        call()


def expected():
    """What is said beside each line of the user's file."""
    lines = USER.read_text(encoding="utf-8").splitlines()
    found = {number: re.search(r"  # (\w[\w\[\]]*)$", line) for number, line in enumerate(lines, 1)}
    return {number: match[1] for number, match in found.items() if match}


def said_by_mypy(output):
    found = {int(n): "error" for n in re.findall(r"typed_user\.py:(\d+): error", output)}
    for number, kind in re.findall(r'typed_user\.py:(\d+): note: Revealed type is "(.*)"', output):
        plain = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", kind)
        found[int(number)] = re.sub(r"^ndarray\[.*", "ndarray", plain)
    return found


def said_by_pyright(output):
    found = {int(n): "error" for n in re.findall(r"typed_user\.py:(\d+):\d+ - error", output)}
    for number, kind in re.findall(r'typed_user\.py:(\d+):\d+ - information: Type of ".*" is "(.*)"', output):
        found[int(number)] = re.sub(r"^ndarray\[.*", "ndarray", kind)
    return found


def run(*words, cwd):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False).stdout


def test_what_is_read_of_their_output():
    mypy = 'a/typed_user.py:3: note: Revealed type is "builtins.list[torch._tensor.Tensor]"\ntyped_user.py:4: error: no'
    assert said_by_mypy(mypy) == {3: "list[Tensor]", 4: "error"}
    pyright = '/a/typed_user.py:3:1 - information: Type of "f(X)" is "ndarray[Any, dtype[Any]]"\n'
    assert said_by_pyright(pyright) == {3: "ndarray"}
    assert {"Tensor", "ndarray", "list[Tensor]", "error"} == set(expected().values())


@pytest.mark.full
def test_mypy_knows_what_comes_back(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {ROOT}\n[mypy-scipy.*]\nignore_missing_imports = True\n")
    assert said_by_mypy(run(sys.executable, "-m", "mypy", str(USER), cwd=tmp_path)) == expected()


@pytest.mark.full
def test_pyright_knows_what_comes_back(tmp_path):
    pytest.importorskip("pyright", reason="pyright is not installed")
    places = [str(ROOT), str(Path(importlib.util.find_spec("torch").origin).parents[1])]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": places}), encoding="utf-8")
    shutil.copy(USER, tmp_path)
    words = (sys.executable, "-m", "pyright", "-p", ".", USER.name)
    assert said_by_pyright(run(*words, cwd=tmp_path)) == expected()


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "spectrain" / "py.typed").is_file()
