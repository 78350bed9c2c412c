"""W + (alpha / rank) B A beside a frozen W: by float64, with a table of other formulas that the check rejects."""

import pytest
import torch
from torch import nn

from spectrain.nn import LanguageModel
from spectrain.nn.models import AdaptedLinear, adapt, merge


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer():
    base = nn.Linear(5, 3, dtype=torch.float64)
    adapted = AdaptedLinear(base, rank=2, alpha=6.0, generator=0)
    with torch.no_grad():
        adapted.lora_B.weight.copy_(draw(3, 2, seed=1))
    return adapted


def wanted(x, a, *, factor=3.0):
    """Of numbers alone: sum over i of x_i (W + factor B A)_ji."""
    W, A, B = a.weight.tolist(), a.lora_A.weight.tolist(), a.lora_B.weight.tolist()
    full = [[W[j][i] + factor * sum(B[j][k] * A[k][i] for k in range(2)) for i in range(5)] for j in range(3)]
    rows = [[sum(full[j][i] * v for i, v in enumerate(row)) + a.bias[j].item() for j in range(3)] for row in x.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def test_it_is_the_layer_and_its_correction():
    a, x = layer(), draw(4, 5, seed=2)
    torch.testing.assert_close(a(x), wanted(x, a), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.merged()(x), wanted(x, a), rtol=1e-12, atol=1e-12)
    assert sorted(name for name, p in a.named_parameters() if p.requires_grad) == ["lora_A.weight", "lora_B.weight"]


WRONG = {"rank over alpha": 1 / 3, "alpha": 6.0, "over the root of the rank": 6 / 2**0.5, "no correction": 0.0}


@pytest.mark.parametrize("factor", WRONG.values(), ids=WRONG)
def test_other_factors_would_be_seen(factor):
    a, x = layer(), draw(4, 5, seed=2)
    assert (a(x) - wanted(x, a, factor=factor)).abs().max() > 0.1


def model():
    made = LanguageModel(vocabulary=11, width=16, depth=2, heads=2, generator=0)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():  # a new model's head and writers are zero, and would hide what is before them
        for p in made.parameters():
            if p.ndim == 2:
                p.normal_(std=0.2, generator=draw)
    return made


def test_a_model_is_what_it_was_until_adapters_learn_and_merging_keeps_what_they_learned():
    tokens, plain = torch.arange(8)[None], model()
    there = plain(tokens).detach()
    found = model()
    names = adapt(found, rank=3, alpha=5.0, generator=1)
    assert len(names) == 2 * 7
    assert torch.equal(found(tokens), there)
    before = {name: p.clone() for name, p in found.named_parameters()}
    with torch.no_grad():
        for name in names:
            found.get_submodule(name).lora_B.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    changed = found(tokens).detach()
    assert (changed - there).abs().max() > 1e-2
    found(tokens).logsumexp(-1).sum().backward()
    graded = {name for name, p in found.named_parameters() if p.grad is not None}
    assert graded == {f"{name}.lora_{part}.weight" for name in names for part in "AB"}
    assert all(torch.equal(p, before[name]) for name, p in found.named_parameters() if "lora_B" not in name)
    torch.testing.assert_close(merge(found)(tokens), changed, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in found.named_parameters()} == {name for name, _ in plain.named_parameters()}


def test_draws_belong_to_the_generator():
    one, same, other = model(), model(), model()
    for each, seed in ((one, 1), (same, 1), (other, 2)):
        adapt(each, rank=2, layers=["up"], generator=seed)
    drawn = [each.state_dict()["blocks.1.feed_forward.up.lora_A.weight"] for each in (one, same, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().max() <= 16**-0.5


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="no linear layer of a block is called 'q_proj'; there are query, key"):
        adapt(model(), rank=2, layers=["q_proj"])
    with pytest.raises(ValueError, match="rank must be"):
        adapt(model(), rank=0)
    twice = model()
    adapt(twice, rank=2)
    with pytest.raises(ValueError, match="has adapters; merge them first"):
        adapt(twice, rank=2)
