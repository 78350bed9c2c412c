"""The cost table and the plan that rests on it: recorded, replayed, and never changed within a process."""

import dataclasses
import itertools
import os
import subprocess
import sys

import pytest
import torch

from spectrain import matfun
from spectrain.matfun import _cost
from spectrain.matfun._cost import SHIPPED, SIDES, CostTable, costs
from spectrain.matfun._plan import Plan


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
    monkeypatch.setattr("spectrain.matfun._calibrate.SIDES", (16, 16, 16, 16, 16))
    monkeypatch.setattr("spectrain.matfun._calibrate.table_file", lambda: tmp_path / "folder" / "costs.json")
    table = matfun.calibrate(repeats=1)
    assert CostTable.from_json((tmp_path / "folder" / "costs.json").read_text()) == table
    for name, row in dataclasses.asdict(table).items():
        assert name == "machine" or min(row) > 0
    matfun.calibrate(repeats=1, save=False)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        matfun.calibrate(repeats=0)


REPLAY = """
import sys, torch
from spectrain import matfun
from spectrain.matfun._cost import costs
from spectrain.matfun._plan import Plan
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
