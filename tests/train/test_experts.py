"""A mixture of experts inside the main job: biases move once a step, and micro-batches change none of them."""

import json
from itertools import pairwise

import pytest
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
