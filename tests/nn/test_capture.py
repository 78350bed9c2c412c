"""Captured outputs are the outputs, hooks leave no trace, wrong patterns are refused."""

import pytest
import torch

from spectrain import nn


@pytest.fixture
def model():
    return nn.LanguageModel(vocabulary=11, width=16, depth=2, heads=2, generator=0)


def hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def test_what_is_captured_is_what_the_module_returned(model):
    x = torch.arange(6).view(1, 6)
    with nn.capture(model, ["blocks.*.attention", "head"]) as seen:
        logits = model(x)
    assert list(seen) == ["blocks.0.attention", "blocks.1.attention", "head"]
    assert torch.equal(seen["head"][0], logits)
    inner = model.blocks[0].attention(
        model.blocks[0].attention_norm(torch.nn.functional.rms_norm(model.embedding(x), (16,)))
    )
    assert torch.equal(seen["blocks.0.attention"][0], inner)


def test_every_call_is_kept_in_order(model):
    with nn.capture(model, "embedding") as seen:
        for t in range(3):
            model(torch.full((1, 2), t))
    assert [out[0, 0].tolist() for out in seen["embedding"]] == [model.embedding.weight[t].tolist() for t in range(3)]


def test_the_graph_is_kept_only_on_request(model):
    for detach in (True, False):
        with nn.capture(model, "norm", detach=detach) as seen:
            model(torch.zeros(1, 2, dtype=torch.long))
        assert seen["norm"][0].requires_grad is not detach


def test_hooks_are_gone_afterwards_also_after_an_exception(model):
    with pytest.raises(RuntimeError, match="inside"), nn.capture(model, "*"):
        assert hooks(model) > 0
        raise RuntimeError("inside")
    assert hooks(model) == 0


def test_capturing_changes_no_output(model):
    x = torch.arange(4).view(1, 4)
    plain = model(x)
    with nn.capture(model, "*"):
        assert torch.equal(model(x), plain)


def test_a_pattern_that_matches_nothing_is_refused(model):
    with (
        pytest.raises(ValueError, match=r"'blocks\.9\.\*' matches no module"),
        nn.capture(model, "blocks.9.*"),
    ):
        pass


def test_the_first_tensor_of_a_tuple_is_taken_and_no_tensor_is_refused():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, 2 * x

    class Count(torch.nn.Module):
        def forward(self, x):
            return 3

    pair, count = torch.nn.Sequential(Pair()), torch.nn.Sequential(Count())
    with nn.capture(pair, "0") as seen:
        pair(torch.ones(2))
    assert seen["0"][0].tolist() == [1, 1]
    with pytest.raises(TypeError, match="no tensor"), nn.capture(count, "0"):
        count(torch.ones(1))


def test_names_stand_in_the_order_of_computation(model):
    with nn.capture(model, "*") as seen:
        model(torch.zeros(1, 2, dtype=torch.long))
    names = list(seen)
    assert names[0] == "embedding"
    assert names[-2:] == ["head", ""]
    assert names.index("blocks.0.attention.query") < names.index("blocks.0.attention") < names.index("blocks.0")


def test_a_module_that_was_not_called_is_absent(model):
    with nn.capture(model, "head") as seen:
        pass
    assert seen == {}
