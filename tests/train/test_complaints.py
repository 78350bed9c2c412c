"""What users of other trainers complained of and no other test of the job shows, by link."""

import json

import pytest
import torch
from safetensors.torch import load_file

from spectrain import nn
from spectrain.train import TrainConfig, train
from spectrain.train._jobs.balance import move_biases
from spectrain.train._mesh.ranks import ALONE


class Nested(torch.nn.Module):
    """A dense block, a layer whose balance is off, one that balances, and one deep inside of a second head."""

    def __init__(self):
        super().__init__()
        shape = {"experts": 4, "top_k": 1, "hidden": 4}
        self.dense = nn.models.SwiGLU(8, hidden=8)
        self.first = nn.MoE(8, **shape, balance="none", generator=0)
        self.second = nn.MoE(8, **shape, generator=1)
        self.heads = torch.nn.ModuleDict({"next but one": torch.nn.Sequential(nn.MoE(8, **shape, generator=2))})

    def forward(self, x):
        x = x + self.dense(x)
        x = x + self.first(x)
        x = x + self.second(x)
        return x + self.heads["next but one"](x)


def experts(model):
    return [module for module in model.modules() if isinstance(module, nn.MoE)]


def stops_at_the_first_without_balance(model):
    for layer in experts(model):
        if layer.balance.rule == "none":
            return
        layer.update_bias()


def walks_over_blocks_only(model):
    for layer in model.children():
        if isinstance(layer, nn.MoE):
            layer.update_bias()


def ours(model):
    return move_biases(model, ALONE, 1.0)


@pytest.mark.parametrize("walk", [ours, stops_at_the_first_without_balance, walks_over_blocks_only])
def test_every_layer_of_experts_is_moved_wherever_it_is(walk):
    """torchtitan #3686: the walk ended at the first layer without balance; #4494: layers outside of blocks stayed."""
    model = Nested()
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 1
    model(x).square().sum().backward()
    figures = walk(model)
    moved = [bool(layer.bias.any()) for layer in experts(model)] == [False, True, True]
    counted = [int(layer.tokens) for layer in experts(model)] == [0, 0, 0]
    assert (moved and counted) == (walk is ours)
    if walk is ours:
        assert sum(name.startswith("moe_max_violation") for name in figures) == 1 + 3


def test_evaluation_does_not_move_a_bias_in_the_job(tiny, tmp_path):
    """prime-rl #2953: tokens of evaluation were counted. Validating twice as often changes no bit of the model."""
    weights = []
    for name, interval in (("often", 2), ("seldom", 12)):
        settings = tiny | {"moe_experts": 4, "moe_top_k": 2, "eval_interval": interval, "out_dir": str(tmp_path / name)}
        folder = train(TrainConfig(**settings))
        weights.append(load_file(folder / "model.safetensors"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert sum(row["kind"] == "eval" for row in rows) >= 12 // interval
    assert weights[0]["blocks.0.feed_forward.bias"].any()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
