"""A mixture of experts inside the main job: biases move once a step, and micro-batches change none of them."""

import json

import pytest
from safetensors.torch import load_file

from spectrain.train import TrainConfig, train


def run(arguments, **more):
    folder = train(TrainConfig(**(arguments | more)))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "model.safetensors"), [row for row in rows if "moe_max_violation" in row]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_experts_run_in_the_job_and_their_loads_are_in_the_metrics(tiny, tmp_path, optimizer):
    more = {"moe_experts": 8, "moe_top_k": 2, "optimizer": optimizer}
    weights, rows = run(tiny, **more, out_dir=str(tmp_path / "whole"))
    bias = weights["blocks.0.feed_forward.bias"]
    assert len(rows) == tiny["max_steps"]
    assert all(row["moe_max_violation"] == row["moe_max_violation.0"] >= 0 for row in rows)
    assert 0 < bias.abs().max() < 1e-3 * 2 * tiny["max_steps"]
    assert not weights["blocks.0.feed_forward.loads"].any()
    parts, again = run(tiny, **more, micro_batch_size=2, out_dir=str(tmp_path / "parts"))
    assert parts["blocks.0.feed_forward.bias"].shape == bias.shape
    assert again[0]["moe_max_violation"] == rows[0]["moe_max_violation"]


def test_refuses_more_chosen_than_there_are():
    with pytest.raises(ValueError, match="moe-top-k must be at most --moe-experts 4"):
        TrainConfig(moe_experts=4, moe_top_k=5)
