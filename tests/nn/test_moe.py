"""The mixture of experts against a naive loop in float64: values, gradients, every dtype, width and layout."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn as torch_nn

from spectrain import nn, optim
from spectrain.nn._experts import products
from spectrain.nn._experts import sum as experts_sum

SHAPE = {"experts": 6, "top_k": 2, "hidden": 10}
KINDS = [
    {},
    {"activation": "sigmoid", "renormalise": True},
    {"activation": "relu", "selection": "sigmoid"},
    {"temperature": 0.5, "shared": 2},
    {"activation": "sigmoid", "select": "threshold"},
    {"activation": "softmax", "select": "threshold", "shared": 1, "renormalise": True},
    {"normalised": True, "activation": "sigmoid"},
    {"top_k": 6, "balance": "none"},
]


def build(width=12, *, dtype=torch.float64, **arguments):
    """A layer whose last matrix is not zero, with a bias that matters."""
    moe = nn.MoE(width, **(SHAPE | arguments), generator=0).to(dtype)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [moe.experts.down, *([moe.shared.down.weight] if moe.shared else [])]:
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
        moe.bias += 0.1 * torch.randn(moe.bias.shape, generator=draw)
    return moe


def tokens(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def activation(name, z):
    return {"softmax": lambda: z.softmax(-1), "sigmoid": z.sigmoid, "relu": z.relu}[name]()


def naive(moe, x, *, wrong=""):
    """One expert after the other, from the formulas of the articles."""
    z = x @ moe.router.weight.T / moe.router.temperature
    gates, scores = activation(moe.router.activation, z), activation(moe.router.selection, z)
    biased = scores + moe.bias.to(x.dtype) * (wrong != "no bias")
    if wrong == "bias in the weights":
        gates = gates + moe.bias.to(x.dtype)
    if moe.router.select == "threshold":
        chosen = biased > 0
    else:
        chosen = torch.zeros_like(biased, dtype=torch.bool)
        for row, best in enumerate(biased.argsort(dim=1, descending=True)[:, : moe.router.top_k].tolist()):
            chosen[row, best] = True
    out = torch.zeros_like(x)
    total = (gates * chosen).sum(1, keepdim=True)
    for e in range(len(moe.bias)):
        hidden = F.silu(x @ moe.experts.gate[e].T) * (x @ moe.experts.up[e].T)
        value = hidden @ moe.experts.down[e].T
        if moe.experts.normalised and wrong != "not normalised":
            value = value / (value.square().mean(1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
        weight = gates[:, e : e + 1]
        if moe.router.renormalise != (wrong == "other sum"):
            weight = torch.where(total > 0, weight / total, 0)
        out = out + torch.where(chosen[:, e : e + 1], weight * value, 0)
    out = out * (1 if wrong == "no scale" else moe.scale)
    return out if moe.shared is None or wrong == "no shared" else out + moe.shared(x)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equals_a_loop_over_experts_and_so_do_its_gradients(kind):
    moe, x = build(**kind), tokens(3, 11, 12).requires_grad_()
    weights = [x, *moe.parameters()]
    out, truth = moe(x), naive(moe, x.view(-1, 12)).view(3, 11, 12)
    torch.testing.assert_close(out, truth, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(out.square().sum(), weights)
    wanted = torch.autograd.grad(truth.square().sum(), weights)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


WRONG = {
    "no bias": {},
    "bias in the weights": {},
    "other sum": {},
    "no scale": {"shared": 1},
    "no shared": {"shared": 1},
    "not normalised": {"normalised": True},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_rejects(wrong):
    moe, x = build(**WRONG[wrong]), tokens(33, 12)
    assert not torch.allclose(moe(x), naive(moe, x, wrong=wrong), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS[:7], ids=str)
def test_gradcheck_in_float64(kind):
    moe, x = build(width=4, hidden=3, **kind), tokens(5, 4).requires_grad_()
    names = [name for name, _ in moe.named_parameters()]

    def layer(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(layer, (x, *moe.parameters()))


def test_second_derivatives_of_the_products():
    x, w = tokens(7, 3).requires_grad_(), tokens(4, 5, 3).requires_grad_()
    ends = torch.tensor([2, 2, 6, 7])
    assert torch.autograd.gradgradcheck(lambda x, w: products.rows(x, w, ends), (x, w))
    y = tokens(7, 5).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda y, x: products.outer(y, x, ends), (y, x))


@pytest.mark.parametrize("ends", [[3, 3, 7, 7], [0, 0, 0, 7], [7, 7, 7, 7]])
def test_products_say_every_number_of_the_room_they_are_given(ends):
    x, y, w = tokens(7, 3), tokens(7, 5), tokens(4, 5, 3)
    owners = torch.searchsorted(torch.tensor(ends), torch.arange(7), right=True)
    given = torch.full((4, 5, 3), torch.nan, dtype=x.dtype), torch.full((7, 5), torch.nan, dtype=x.dtype)
    found = (
        products.outer_into(given[0], y, x, torch.tensor(ends)),
        products.rows_into(given[1], x, w, torch.tensor(ends)),
    )
    each = torch.einsum("po,pi->poi", y, x)
    torch.testing.assert_close(found[0], torch.zeros_like(w).index_add(0, owners, each))
    torch.testing.assert_close(found[1], torch.einsum("poi,pi->po", w[owners], x))
    assert found[0] is given[0]
    assert found[1] is given[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [(16, 32), (13, 7), (1, 1)])
@pytest.mark.parametrize("ends", [[3, 9, 9, 20], [0, 0, 0, 20], [20, 20, 20, 20], [0, 0, 0, 0]])
def test_products_of_every_dtype_width_and_empty_group(dtype, widths, ends):
    inner, outer = widths
    pairs, stacked = tokens(ends[-1], inner), tokens(4, outer, inner)
    x, w = pairs.to(dtype).requires_grad_(), stacked.to(dtype).requires_grad_()
    y = products.rows(x, w, torch.tensor(ends))
    assert y.dtype == dtype
    expert = torch.searchsorted(torch.tensor(ends), torch.arange(ends[-1]), right=True)
    truth = torch.einsum("poi,pi->po", w.detach().double()[expert], x.detach().double())
    tolerance = 8 * torch.finfo(dtype).eps * inner
    torch.testing.assert_close(y.double(), truth, rtol=tolerance, atol=tolerance)
    y.sum().backward()  # an expanded gradient, which grouped_mm refuses
    assert not w.grad[[e for e in range(4) if e not in expert]].any()
    wanted = torch.zeros(4, inner, dtype=torch.float64).index_add(0, expert, x.detach().double())
    torch.testing.assert_close(w.grad.double(), wanted[:, None].expand(4, outer, inner), rtol=0.05, atol=0.2)


def test_grouped_mm_refuses_what_the_products_take():
    """When torch accepts these, the loop can go."""
    ends = torch.tensor([1, 2], dtype=torch.int32)
    for dtype, width in ((torch.float64, 8), (torch.float32, 7)):
        with pytest.raises((RuntimeError, ValueError)):
            F.grouped_mm(torch.ones(2, width, dtype=dtype), torch.ones(2, 8, width, dtype=dtype).mT, offs=ends)


def test_repr_says_which_products_run():
    assert "products=grouped_mm" in repr(build(width=16, hidden=8, dtype=torch.float32))
    assert "products=loop" in repr(build(width=16, hidden=8))
    assert "products=loop" in repr(build(width=13, dtype=torch.float32))


def test_a_token_may_take_no_expert_and_none_or_all_tokens_may_come():
    moe = build(activation="sigmoid", select="threshold")
    moe.bias.fill_(-2)
    assert not moe(tokens(5, 12)).any()
    assert moe(tokens(0, 12)).shape == (0, 12)
    assert moe(tokens(12)).shape == (12,)


@pytest.mark.parametrize("scope", ["batch", "sequence", "global"])
@pytest.mark.parametrize("kind", ["product", "squared", "entropy"])
def test_no_tokens_have_no_penalty(kind, scope):
    moe = build(penalty=nn.experts.Penalty(kind=kind, scope=scope, z_weight=0.1))
    for shape in ((0, 3, 12), (2, 0, 12), (0, 12)):
        moe(tokens(*shape))
        loss = nn.experts.auxiliary_loss(moe)
        loss.backward()
        assert loss.item() == 0
    assert not any(p.grad.any() for p in moe.router.parameters())


def test_a_copy_leaves_the_waiting_penalty_to_the_original():
    moe = build(penalty=nn.experts.Penalty())
    moe(tokens(5, 12)).sum().backward()
    twin = copy.deepcopy(moe)
    assert twin.update_bias().tokens == 5  # no penalty of its own that it could have forgotten
    with pytest.raises(ValueError, match="in no loss"):
        moe.update_bias()
    assert nn.experts.auxiliary_loss(moe).item() > 0


def test_low_precision_and_autocast_stay_near_float64():
    moe, x = build(width=16, shared=1), tokens(64, 16)
    truth = moe(x)
    single = build(width=16, shared=1, dtype=torch.float32)
    torch.testing.assert_close(single(x.float()).double(), truth, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = single(x.float())
    assert half.dtype == torch.bfloat16
    assert (half.double() - truth).norm() < 0.02 * truth.norm()


def test_the_bias_stays_in_float32_under_every_cast():
    moe = nn.MoE(8, **SHAPE)
    moe.bias[0] = 1 + 2**-12
    assert moe.to(torch.bfloat16).half().double().bias[0] == 1 + 2**-12
    assert moe.bias.dtype == torch.float32
    assert moe.loads.dtype == torch.long


def test_made_on_meta_and_drawn_later():
    with torch.device("meta"):
        moe = nn.MoE(8, **SHAPE, activation="sigmoid", select="threshold")
    moe = moe.to_empty(device="cpu")
    moe.initialise(generator=torch.Generator().manual_seed(0))
    ready = nn.MoE(8, **SHAPE, activation="sigmoid", select="threshold", generator=0)
    for a, b in zip(moe.state_dict().values(), ready.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_making_one_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    nn.MoE(8, **SHAPE, shared=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_muon_takes_every_expert_as_a_matrix_of_its_own():
    model = nn.LanguageModel(
        vocabulary=20, width=16, depth=1, heads=2, feed_forward=lambda i: nn.MoE(16, **SHAPE, shared=1), generator=0
    )
    rows = {row["name"]: row for row in optim.route(model).rows}
    for name in ("gate", "up", "down"):
        assert rows[f"blocks.0.feed_forward.experts.{name}"]["algorithm"] == "muon"
    experts = model.blocks[0].feed_forward.experts
    groups = [g for g in optim.route(model) if any(p is experts.gate for _, p in g["params"])]
    assert groups[0]["matrix"] == {"batch": 1}
    optimizer = optim.Muon(model, lr=0.1, weight_decay=0.0)
    before = experts.down.detach().clone()
    model(torch.arange(20)[None]).square().sum().backward()
    experts.down.grad = tokens(*experts.down.shape).float()
    optimizer.step()
    spectra = torch.linalg.svdvals(experts.down.detach() - before)
    torch.testing.assert_close(spectra, spectra.mean().expand_as(spectra), rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"top_k": 7}, "top_k must be from 1"),
        ({"top_k": 0}, "top_k must be from 1"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"selection": "tanh"}, "selection must be one of"),
        ({"select": "top_p"}, "select must be"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"hidden": 0}, "at least 1"),
        ({"shared": -1}, "at least 0"),
        ({"balance": "magic"}, "rule must be one of"),
        ({"balance": "quantile", "top_k": 6}, "nothing to balance"),
    ],
)
def test_refuses_what_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        nn.MoE(8, **(SHAPE | arguments))


def test_is_a_feed_forward_part_of_the_language_model():
    model = nn.LanguageModel(
        vocabulary=11, width=16, depth=2, heads=2, feed_forward=lambda i: nn.MoE(16, **SHAPE), generator=0
    )
    again = nn.LanguageModel(
        vocabulary=11, width=16, depth=2, heads=2, feed_forward=lambda i: nn.MoE(16, **SHAPE), generator=0
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 11)
    assert isinstance(model.blocks[0].feed_forward, torch_nn.Module)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_pass_in_blocks_has_the_derivatives_of_the_composition(normalised, monkeypatch):
    """Also the second ones, and with the smallest blocks."""
    draw = torch.Generator().manual_seed(3)
    x, both, down, weight = (
        torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in ((5, 3), (4, 8, 3), (4, 3, 4), (7, 1))
    )
    token, ends = torch.tensor([0, 4, 1, 2, 0, 3, 4]), torch.tensor([2, 2, 6, 7])
    inputs = (x, weight, both, down)

    def layer(x, weight, both, down):
        return experts_sum.experts_sum(x, token, weight, ends, both, down, normalised=normalised)

    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)
    whole = torch.autograd.grad(layer(*inputs).square().sum(), inputs)
    monkeypatch.setattr(experts_sum, "CACHED", 1)
    blocks = torch.autograd.grad(layer(*inputs).square().sum(), inputs)
    for a, b in zip(blocks, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
