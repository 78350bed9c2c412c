"""The cost table and the plan that rests on it: recorded, replayed, and never changed within a process."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven import costs as _cost
from spectrain.matfun._proven.costs import SHIPPED, SIDES, CostTable, costs
from spectrain.matfun._proven.plan import Plan


def with_rate(name, factor):
    return dataclasses.replace(SHIPPED, **{name: tuple(factor * value for value in getattr(SHIPPED, name))})


def test_a_faster_algorithm_is_taken():
    shape = (512, 1024)
    assert matfun.plan(shape, costs=SHIPPED).stages[0] == "iterate float32"
    slow_products = with_rate("product_float32", 0.02)
    assert matfun.plan(shape, costs=slow_products).stages[0] == "eigh float64"
    assert matfun.plan(shape, torch.float32, 1e-2, costs=with_rate("eigh_float32", 0.001)).stages[0] == "eigh float32"


def test_prices_grow_with_the_matrix():
    sizes = [matfun.plan((k, 2 * k), costs=SHIPPED).seconds[-1] for k in (32, 64, 200, 512, 2048)]
    assert sizes == sorted(sizes)
    assert SHIPPED.product("float32", 512, 4) == pytest.approx(4 * 2 * 512**3 / (1e9 * SHIPPED.product_float32[3]))
    for low, high in itertools.pairwise(SIDES):
        rates = [2e-9 * k**3 / SHIPPED.product("float64", k, 1) for k in (low, int((low * high) ** 0.5), high)]
        assert rates == sorted(rates)


def test_a_table_and_a_plan_are_recorded_and_replayed():
    assert CostTable.from_json(SHIPPED.to_json()) == SHIPPED
    decision = matfun.plan((96, 384), torch.bfloat16)
    assert Plan.from_json(decision.to_json()) == decision
    for bad in ("{}", "[]", "no", SHIPPED.to_json().replace("4.9", "-1"), SHIPPED.to_json().replace("4.9", '"x"')):
        with pytest.raises(ValueError, match=r"CostTable.from_json"):
            CostTable.from_json(bad)
        with pytest.raises(ValueError, match=r"Plan.from_json"):
            Plan.from_json(bad)


def spoiled(record, **fields):
    return json.dumps(json.loads(record.to_json()) | fields)


DEEP = "[" * 100_000
HUGE = 10**400
ROW = list(SHIPPED.eigh_float32)
SPOILED_TABLES = {
    "NaN": {"eigh_float32": [float("nan"), *ROW[1:]]}, "infinite": {"eigh_float32": [float("inf"), *ROW[1:]]},
    "beyond doubles": {"eigh_float32": [HUGE, *ROW[1:]]}, "zero": {"eigh_float32": [0, *ROW[1:]]},
    "negative": {"eigh_float32": [-1, *ROW[1:]]}, "denormal": {"eigh_float32": [5e-324, *ROW[1:]]},
    "short": {"eigh_float32": ROW[1:]}, "a text": {"eigh_float32": "12345"}, "truth": {"eigh_float32": [True] * 5},
    "no row": {"eigh_float32": None}, "another name": {"eigh_int8": ROW}, "machine": {"machine": 3},
}  # fmt: skip
PLAN = matfun.plan((96, 384), torch.bfloat16, costs=SHIPPED)
SPOILED_PLANS = {
    "a function of torch": {"dtype": "load"}, "another dtype": {"dtype": "int8"}, "no name": {"dtype": ["bfloat16"]},
    "NaN": {"tol": float("nan")}, "infinite": {"tol": float("inf")}, "below rounding": {"tol": 1e-9},
    "negative": {"tol": -1.0}, "beyond doubles": {"tol": HUGE}, "a negative side": {"shape": [-1, 5]},
    "a fraction": {"shape": [1.5, 5]}, "three sides": {"shape": [1, 2, 3]}, "a truth value": {"shape": [True, 5]},
    "no stages": {"stages": [], "seconds": []}, "another stage": {"stages": ["guess"], "seconds": [1.0]},
    "stages as text": {"stages": "svd float64"}, "negative time": {"seconds": [-1.0] * len(PLAN.stages)},
    "NaN time": {"seconds": [float("nan")] * len(PLAN.stages)}, "a time too few": {"seconds": list(PLAN.seconds[1:])},
    "another name": {"more": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED_TABLES)
def test_a_table_that_cannot_be_one_is_refused(name):
    with pytest.raises(ValueError, match=r"CostTable\.from_json: not a table written by to_json"):
        CostTable.from_json(spoiled(SHIPPED, **SPOILED_TABLES[name]))


@pytest.mark.parametrize("name", SPOILED_PLANS)
def test_a_plan_that_cannot_be_one_is_refused(name):
    with pytest.raises(ValueError, match=r"Plan\.from_json: not a plan written by to_json"):
        Plan.from_json(spoiled(PLAN, **SPOILED_PLANS[name]))


@pytest.mark.parametrize(
    "text", [DEEP, "", "3", "null", '{"a":' * 50_000], ids=["deep", "empty", "3", "null", "objects"]
)
@pytest.mark.parametrize("kind", [CostTable, Plan])
def test_what_is_no_record_is_refused(kind, text):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.from_json"):
        kind.from_json(text)


def test_a_process_reads_one_table_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_cost, "table_file", lambda: tmp_path / "costs.json")
    costs.cache_clear()
    try:
        assert costs() is SHIPPED
        (tmp_path / "costs.json").write_text(with_rate("eigh_float64", 3).to_json())
        assert costs() is SHIPPED
        costs.cache_clear()  # what the next process sees
        assert costs() == with_rate("eigh_float64", 3)
        (tmp_path / "costs.json").write_text("spoiled")
        costs.cache_clear()
        assert costs() is SHIPPED
    finally:
        costs.cache_clear()


def test_calibrating_measures_every_row_and_writes_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("spectrain.matfun._proven.costs.SIDES", (16, 16, 16, 16, 16))
    monkeypatch.setattr("spectrain.matfun._proven.costs.table_file", lambda: tmp_path / "folder" / "costs.json")
    table = matfun.planning.calibrate(repeats=1)
    assert CostTable.from_json((tmp_path / "folder" / "costs.json").read_text()) == table
    for name, row in dataclasses.asdict(table).items():
        assert name == "machine" or min(row) > 0
    matfun.planning.calibrate(repeats=1, save=False)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        matfun.planning.calibrate(repeats=0)


REPLAY = """
import sys, torch
from spectrain import matfun
from spectrain.matfun._proven.costs import costs
from spectrain.matfun._proven.plan import Plan
X = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
plan = Plan.from_json(open(sys.argv[1]).read())
torch.save((costs().machine, matfun.plan(X.shape).stages, matfun.msign(X), matfun.msign(X, plan=plan)), sys.argv[2])
"""


def test_a_saved_plan_gives_the_same_choice_and_bits_in_a_process_with_another_table(tmp_path):
    """A run saves its plan; the process that resumes has calibrated meanwhile, and by itself would choose otherwise."""
    X = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    plan = matfun.plan(X.shape, costs=SHIPPED)
    (tmp_path / "plan.json").write_text(plan.to_json())
    (tmp_path / "spectrain").mkdir()
    slow = dataclasses.replace(with_rate("product_float32", 0.01), machine="another")
    (tmp_path / "spectrain" / "costs.json").write_text(slow.to_json())
    command = [sys.executable, "-c", REPLAY, str(tmp_path / "plan.json"), str(tmp_path / "found.pt")]
    where = {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, env=os.environ | where, check=True)
    machine, stages, alone, replayed = torch.load(tmp_path / "found.pt")
    assert machine == "another"
    assert stages[0] != plan.stages[0]
    assert torch.equal(replayed, matfun.msign(X, plan=plan))
    assert not torch.equal(alone, replayed)


def test_a_plan_is_for_its_shape_and_dtype_alone():
    plan = matfun.plan((8, 12))
    assert torch.equal(matfun.msign(torch.eye(8, 12), plan=plan), torch.eye(8, 12))
    for X, more in (
        (torch.eye(8, 13), {}), (torch.eye(8, 12).double(), {}), (torch.eye(8, 12), {"tol": 1e-3}),
        (torch.eye(8, 12), {"steps": 2}), (torch.eye(8, 12), {"method": "svd"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"plan"):
            matfun.msign(X, plan=plan, **more)
