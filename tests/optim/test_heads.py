"""Output heads: named, declared, last in a Sequential; a guess warns and names the parameter, and heads= decides."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from spectrain.optim import Muon, mup, route, spectra


def chain(*sizes):
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def of(**modules):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            for name, module in modules.items():
                setattr(self, name, module)

    return Model()


def heads(model, **settings):
    return [row["name"] for row in route(model, **settings).rows if row["reason"].startswith("output head")]


class Classifier(nn.Module):
    """Says which module its head is, as timm's models do; one of its hidden layers has the name of a head."""

    def __init__(self, head):
        super().__init__()
        self.conv_head, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.top = head

    def get_classifier(self):
        return self.top


CERTAIN = {
    "several heads": (lambda: of(body=chain(8, 8, 8), box_head=nn.Linear(8, 4), class_head=nn.Linear(8, 9)),
                      ["box_head.weight", "class_head.weight"]),
    "a convolution": (lambda: of(body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1), tail=nn.Conv2d(2, 2, 1)),
                      ["head.weight"]),
    "actor and critic": (lambda: of(body=nn.Linear(8, 8), actor=chain(8, 8, 4), critic=chain(8, 8, 2)),
                         ["actor.2.weight", "critic.2.weight"]),
    "a head of several layers": (lambda: of(body=nn.Linear(8, 8), classifier=chain(8, 8, 3), after=nn.Linear(8, 8)),
                                 ["classifier.2.weight"]),
    "a Sequential": (lambda: nn.Sequential(chain(8, 8), chain(8, 8, 3), nn.Softmax(-1)), ["1.2.weight"]),
    "a Sequential of convolutions": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)),
                                     ["2.weight"]),
    "declared by a method": (lambda: Classifier(nn.Linear(8, 3)), ["top.weight"]),
    "declared by a method, two": (lambda: Classifier(nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 5)])),
                                  ["top.0.weight", "top.1.weight"]),
    "declared that there is none": (lambda: Classifier(nn.Identity()), []),
    "declared inside of a wrapper, none": (lambda: of(module=Classifier(nn.Identity())), []),
    "declared inside of a wrapper": (lambda: of(module=Classifier(nn.Linear(8, 3))), ["module.top.weight"]),
    "one block": (lambda: of(blocks=nn.ModuleList([of(up=nn.Linear(8, 16), down=nn.Linear(16, 8))])), []),
    "equal blocks": (lambda: of(blocks=nn.ModuleList(nn.Linear(8, 8) for _ in range(3))), []),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), CERTAIN.values(), ids=CERTAIN)
def test_a_head_that_is_certain_is_taken_without_a_warning(make, expected):
    assert sorted(heads(make())) == expected


GUESSES = {
    "an encoder": (lambda: of(a=nn.Linear(8, 16), b=nn.Linear(16, 8)), "b.weight"),
    "a Sequential that ends in a block": (
        lambda: nn.Sequential(nn.Linear(8, 8), of(up=nn.Linear(8, 16), down=nn.Linear(16, 8))), "1.down.weight"),
    "convolutions": (lambda: of(a=nn.Conv2d(3, 8, 3), out=nn.Conv2d(8, 2, 1)), "out.weight"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "name"), GUESSES.values(), ids=GUESSES)
def test_a_guess_warns_and_names_the_parameter(make, name):
    with pytest.warns(UserWarning, match=rf"{name} is taken for it .* heads=\['{name}'\]"):
        assert heads(make()) == [name]
    assert heads(make(), heads=[name]) == [name]
    assert heads(make(), heads=[]) == []
    assert heads(make(), rules={name: "adamw"}) == []
    model = make()
    dict(model.named_parameters())[name].requires_grad_(False)
    assert heads(model) == [name]  # it does not move, whatever it is


def test_heads_by_pattern_decide_alone():
    model = of(body=nn.Linear(8, 8), left=nn.Linear(8, 4), right=nn.Linear(8, 4), head=nn.Linear(8, 2))
    assert sorted(heads(model, heads=["left*", "r*.weight"])) == ["left.weight", "right.weight"]
    assert heads(model, heads=["left*"], rules={"left.weight": "muon"}) == []
    assert {row["name"]: row["algorithm"] for row in Muon(model, heads=["body.*"]).rows}["head.weight"] == "muon"
    with pytest.raises(ValueError, match=r"no parameter of two dimensions: up\.\*, \*\.bias"):
        route(model, heads=["up.*", "*.bias"])
    with pytest.raises(TypeError, match="list of patterns"):
        route(model, heads="head.weight")
    with pytest.raises(ValueError, match="heads= need the model"):
        Muon([nn.Parameter(torch.zeros(3, 3))], heads=[])


def test_mup_asks_the_same_question_once():
    def make():
        return of(a=nn.Linear(8, 16), b=nn.Linear(16, 16), c=nn.Linear(16, 4))

    with pytest.warns(UserWarning, match=r"c\.weight is taken"):
        scaled = mup(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(scaled.groups("muon", lr=0.1)) == 4
        told = mup(make(), roles={"c.weight": "output"})
        assert [part.role for part in told.parts if part.param.ndim > 1] == ["input", "hidden", "output"]


def test_looking_at_another_optimizers_spectra_asks_nothing():
    model = of(a=nn.Linear(8, 16), b=nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    model.b(model.a(torch.ones(2, 8))).square().mean().backward()
    optimizer.step()
    assert [row["name"] for row in spectra(model, optimizer)] == ["a.weight"]
