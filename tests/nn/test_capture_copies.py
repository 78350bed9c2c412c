"""What is captured stays what the module returned, and is found in whatever holds it."""

import collections
import dataclasses
import warnings

import pytest
import torch

from spectrain import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers.modeling_outputs import BaseModelOutput

Named = collections.namedtuple("Named", "count hidden")


@dataclasses.dataclass(frozen=True)
class Fields:
    count: int
    hidden: torch.Tensor


HOLDERS = {
    "tuple": lambda x: (3, x),
    "list": lambda x: [3, x],
    "nested": lambda x: (3, {"deep": [x]}),
    "namedtuple": lambda x: Named(3, x),
    "dictionary": lambda x: {"count": 3, "hidden": x},
    "ordered": lambda x: collections.OrderedDict(count=3, hidden=x),
    "user's mapping": lambda x: collections.UserDict(count=3, hidden=x),
    "transformers": lambda x: BaseModelOutput(last_hidden_state=x),
    "dataclass": lambda x: Fields(3, x),
    "torch's own": lambda x: torch.return_types.max((x, x > 0)),
}


class Holding(torch.nn.Module):
    def __init__(self, hold):
        super().__init__()
        self.hold = hold

    def forward(self, x):
        return self.hold(2 * x)


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_the_first_tensor_is_found_and_changed_in_whatever_holds_it(hold):
    model, x = torch.nn.Sequential(Holding(hold)), torch.ones(2)
    plain = model(x)
    with nn.capture(model, "0", edits={"0": lambda y: y + 1}) as seen:
        edited = model(x)
    assert seen["0"][0].tolist() == [3, 3]
    assert type(edited) is type(plain)
    with nn.capture(model, "0") as again:  # the edit went into a copy
        model(x)
    assert again["0"][0].tolist() == [2, 2]
    assert str(edited) == str(hold(torch.full((2,), 3.0))) or hold is HOLDERS["torch's own"]


class InPlace(torch.nn.Module):
    """Goes on in place, three ways: ReLU, a residual, and one on what the module was given."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.same = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Identity()

    def forward(self, x):
        y = torch.relu_(self.first(x))
        z = self.second(y)
        z += x
        w = z * 1
        seen = self.same(w)
        w.mul_(2)
        return seen


@pytest.mark.parametrize("detach", [True, False])
def test_what_happens_in_place_afterwards_changes_nothing(detach):
    torch.manual_seed(0)
    model, x = InPlace(), torch.randn(5, 4)
    first = x @ model.first.weight.T + model.first.bias
    second = first.relu() @ model.second.weight.T + model.second.bias
    with nn.capture(model, ["first", "second", "same"], detach=detach) as seen:
        model(x)
    truth = {"first": first, "second": second, "same": second + x}
    for name, value in truth.items():
        torch.testing.assert_close(seen[name][0], value.detach() if detach else value)
        assert (seen[name][0] < 0).any()
    last = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(inplace=True))
    with nn.capture(last, "*", detach=detach) as seen:
        last(x)
    assert (seen["0"][0] < 0).any()
    torch.testing.assert_close(seen["1"][0], seen["0"][0].relu())


def test_derivatives_by_what_was_captured_are_those_of_the_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 1))
    x = torch.randn(5, 4)
    with nn.capture(model, "0", detach=False) as seen:
        loss = model(x).sum()
    got = torch.autograd.grad(loss, seen["0"][0])[0]
    torch.testing.assert_close(got, model[2].weight * (model[0](x) > 0))


def test_complex_numbers_are_refused_by_statistics():
    with pytest.raises(TypeError):
        nn.activations.Statistics().add(torch.ones(2, 2, dtype=torch.complex64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_narrow_models_are_those_of_float64_where_products_overflow(dtype):
    block = nn.Attention(16, heads=2, qk_norm=False)
    with torch.no_grad():
        for i, p in enumerate(block.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    block, x = block.to(dtype), (100 * torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(9))).to(dtype)
    plain = block(x)
    with nn.capture(block, ["maps", "queries", "keys"]) as seen:
        watched = block(x)
    scores = seen["queries"][0].double() @ seen["keys"][0].double().mT * block.scale
    assert scores.abs().max() > torch.finfo(torch.float16).max
    truth = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    torch.testing.assert_close(seen["maps"][0].double(), truth, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(watched, plain, rtol=3e-2, atol=3e-2 * plain.abs().max().item())
