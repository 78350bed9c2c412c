"""A mixture of experts inside the main job: biases move once a step, and micro-batches change none of them."""

import json
import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from spectrain.train import TrainConfig, train


def run(arguments, **more):
    folder = train(TrainConfig(**(arguments | more)))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "model.safetensors"), [row for row in rows if row["kind"] in ("step", "eval")]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_experts_run_in_the_job_and_their_loads_are_in_the_metrics(tiny, tmp_path, optimizer):
    more = {"moe_experts": 8, "moe_top_k": 2, "optimizer": optimizer}
    weights, rows = run(tiny, **more, out_dir=str(tmp_path / "whole"))
    bias = weights["blocks.0.feed_forward.bias"]
    steps = [row for row in rows if row["kind"] == "step"]
    assert len(steps) == tiny["max_steps"]
    assert all(row["moe_max_violation"] == row["moe_max_violation.0"] >= 0 for row in rows)
    for row in steps:
        (loads,) = row["moe_loads"]
        assert sum(loads) == row["tokens"] / row["step"] * 2
        assert row["moe_max_violation"] == max(loads) * 8 / sum(loads) - 1
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["moe_max_violation"] == summary["moe_max_violation.0"] > 0
    travel = 0.03 * sum((row["lr"] / tiny["lr"]) ** (2 / 3) for row in steps)  # signs less their mean are below 2
    assert 0 < bias.abs().max() < 2 * travel
    assert not weights["blocks.0.feed_forward.loads"].any()
    parts, again = run(tiny, **more, micro_batch_size=2, out_dir=str(tmp_path / "parts"))
    assert parts["blocks.0.feed_forward.bias"].shape == bias.shape
    assert again[0]["moe_max_violation"] == rows[0]["moe_max_violation"]


def test_the_rate_of_the_bias_follows_the_length_of_the_run_and_the_flag():
    rates = {
        steps: TrainConfig(moe_experts=8, max_steps=steps).derive()[0].moe_balance_rate for steps in (60, 300, 9999)
    }
    assert rates == {60: 0.03, 300: 0.02, 9999: 0.01}
    assert TrainConfig(moe_experts=8, moe_balance_rate=0.5).derive()[0].moe_balance_rate == 0.5
    assert TrainConfig(max_steps=60).derive()[0].moe_balance_rate is None
    assert TrainConfig(max_steps=60, moe_experts=8, moe_balance="quantile").derive()[0].moe_balance_rate is None
    with pytest.raises(ValueError, match="--moe-balance-rate must be positive and finite"):
        TrainConfig(moe_balance_rate=0.0)


def test_the_last_steps_move_the_bias_least(tiny, tmp_path):
    flags = {"moe_experts": 8, "moe_top_k": 2, "save_interval": 1, "keep_last": 12, "optimizer": "adamw"}
    train(TrainConfig(**tiny | flags, out_dir=str(tmp_path / "run")))
    files = sorted((tmp_path / "run" / "checkpoints").glob("step-*/model.safetensors"))
    biases = [load_file(file)["blocks.0.feed_forward.bias"] for file in files]
    moves = [(b - a).abs().max().item() for a, b in pairwise(biases)]
    assert len(moves) == 11
    assert moves[-1] < moves[2] / 2


def test_refuses_more_chosen_than_there_are():
    with pytest.raises(ValueError, match="moe-top-k must be at most --moe-experts 4"):
        TrainConfig(moe_experts=4, moe_top_k=5)


def test_a_penalty_of_the_whole_step_is_the_same_in_micro_batches_and_balances(tiny, tmp_path):
    """The gradient of n sum F P with the loads F of the step before: however the batch is divided."""
    more = {"moe_experts": 8, "moe_top_k": 2, "moe_balance": "none", "optimizer": "adamw", "autocast": "off"}
    runs = {}
    for name, flags in (("whole", {}), ("parts", {"micro_batch_size": 1}), ("without", {"moe_penalty": 0.0})):
        runs[name] = run(tiny | more | {"moe_penalty": 1.0} | flags, out_dir=str(tmp_path / name))
    whole, parts, without = (runs[name][0]["blocks.0.feed_forward.router.weight"] for name in runs)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    assert (without - whole).abs().max() > 1e-3
    last = {
        name: [row["moe_max_violation"] for row in rows if row["kind"] == "step"][-1]
        for name, (_, rows) in runs.items()
    }
    assert last["whole"] < last["without"]
    rows = [row for row in runs["whole"][1] if row["kind"] == "step"]
    assert all(math.isfinite(row["moe_penalty"]) and row["moe_penalty"] >= 0 for row in rows)
    assert "moe_penalty" not in runs["without"][1][1]


def test_a_threshold_holds_the_number_of_experts_on_average(tiny, tmp_path):
    more = {"moe_experts": 8, "moe_top_k": 2, "moe_select": "threshold", "moe_balance": "histogram"}
    _, rows = run(tiny, **more, out_dir=str(tmp_path / "run"))
    steps = [row for row in rows if row["kind"] == "step"]
    taken = [row["moe_experts_a_token.0"] for row in steps]
    assert any(x != 2 for x in taken)
    assert sum(taken[-4:]) / 4 == pytest.approx(2, abs=0.3)


def test_skewed_shares_are_those_of_zipf_and_are_reached(tiny, tmp_path):
    config = TrainConfig(moe_experts=4, moe_top_k=1, moe_skew=1.0)
    assert config.moe_target == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25], rel=1e-15)  # 1, 1/2, 1/3, 1/4 of 25/12
    assert TrainConfig(moe_experts=4).moe_target is None
    more = {"moe_experts": 4, "moe_top_k": 1, "moe_skew": 1.0, "moe_balance": "histogram"}
    _, rows = run(tiny, **more, out_dir=str(tmp_path / "run"))
    steps = [row for row in rows if row["kind"] == "step"]
    loads = [sum(row["moe_loads"][0][j] for row in steps[-6:]) for j in range(4)]
    assert loads[0] > 1.5 * loads[1] > 1.5 * loads[3]
    (last,) = steps[-1]["moe_loads"]
    wanted = max(count / sum(last) / share for count, share in zip(last, config.moe_target, strict=True)) - 1
    assert steps[-1]["moe_max_violation"] == pytest.approx(wanted, rel=1e-12)


def test_padding_of_packed_documents_is_no_load(tiny, tmp_path):
    """Rows of whole documents are filled up: those places count for no expert."""
    more = {"moe_experts": 8, "moe_top_k": 2, "packing": "documents", "autocast": "off", "optimizer": "adamw"}
    _, rows = run(tiny, **more, moe_penalty=0.5, out_dir=str(tmp_path / "run"))
    steps = [row for row in rows if row["kind"] == "step"]
    for row, before in zip(steps, [{"tokens": 0}, *steps], strict=False):
        assert sum(row["moe_loads"][0]) == 2 * (row["tokens"] - before["tokens"])
    places = tiny["batch_size"] * tiny["block"]
    assert any(row["tokens"] - before["tokens"] < places for row, before in zip(steps[1:], steps, strict=False))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"moe_penalty": -1.0}, "--moe-penalty must be 0 or more"),
        ({"moe_penalty": math.inf}, "--moe-penalty must be 0 or more"),
        *(
            ({"moe_experts": None, name: value}, f"--{name.replace('_', '-')} must be left out without --moe-experts")
            for name, value in {
                "moe_top_k": 2,
                "moe_shared": 2,
                "moe_balance": "quantile",
                "moe_balance_rate": 0.02,
                "moe_penalty": 0.01,
                "moe_skew": 0.5,
                "moe_select": "threshold",
            }.items()
        ),
        ({"moe_balance": "quantile", "moe_balance_rate": 0.02}, "--moe-balance-rate must be left out with --moe-b"),
        ({"moe_balance": "none", "moe_balance_rate": 0.02}, "--moe-balance-rate must be left out with --moe-balance"),
        ({"moe_experts": 4, "moe_balance": "quantile"}, "--moe-balance must be sign, rms or none where --moe-top-k"),
        ({"moe_experts": 4, "moe_balance": "histogram"}, "--moe-balance must be sign, rms or none where --moe-top-k"),
        ({"moe_skew": -0.5}, "--moe-skew must be 0 or more"),
        ({"moe_skew": 3.0}, "one can take less than 0.25"),
        (
            {"moe_select": "threshold", "moe_balance": "none"},
            "--moe-balance must be sign, rms, quantile or histogram with",
        ),
        ({"moe_skew": 0.2, "moe_balance": "none"}, "--moe-skew must be 0 where neither"),
    ],
)
def test_refuses_loads_that_nothing_brings_about(flags, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**{"moe_experts": 16} | flags)
