"""Every trained token is counted once: accumulation, checkpointing, evaluation in between, resume."""

import copy
import io
import itertools
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spectrain import nn

STEPS, BATCH, WIDTH = 6, 16, 12
FORMS = {"no": None, "non-reentrant": False, "reentrant": True}


class Model(torch.nn.Module):
    """Two layers of experts, each optionally recomputed in the backward pass."""

    def __init__(self, form, *, balance="sign", **arguments):
        super().__init__()
        shape = {"experts": 8, "top_k": 2, "hidden": 8, "shared": 1, "activation": "sigmoid"} | arguments
        rule = nn.experts.Balance(rule=balance, rate=0.01)
        self.layers = torch.nn.ModuleList(nn.MoE(WIDTH, **shape, balance=rule, generator=i) for i in range(2))
        self.form = form
        self.double()

    def forward(self, x):
        for layer in self.layers:
            plain = self.form is None or not torch.is_grad_enabled()
            out = layer(x) if plain else checkpoint(layer, x, use_reentrant=self.form)
            x = x + out
        return x


def batch(step):
    draw = torch.Generator().manual_seed(step)
    favour = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    return torch.randn(BATCH, 5, WIDTH, generator=draw, dtype=torch.float64) + favour


def trajectory(form="no", *, parts=1, evaluate=False, resume=False, wrong="", **arguments):
    """Biases of both layers after each step, and the loads of each step."""
    model = Model(FORMS[form], **arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    biases, loads = [], []
    for step in range(STEPS):
        for x in batch(step).chunk(parts):
            x = x.clone().requires_grad_()
            (model(x).square().mean() / parts).backward()
            if wrong == "an update a micro-batch":
                [layer.update_bias() for layer in model.layers]
            if wrong == "counted in the forward pass":
                first = model.layers[0]
                first.loads += first.router(x.flatten(0, 1), first.bias).chosen.sum(0)
            if evaluate:
                look(model, x)
        optimizer.step()
        optimizer.zero_grad()
        if wrong != "an update a micro-batch":
            loads.append([layer.update_bias().counts.tolist() for layer in model.layers])
        biases.append([layer.bias.clone() for layer in model.layers])
        if resume and step == STEPS // 2:
            model, optimizer = resumed(model, optimizer, form, arguments)
    return biases, loads


def look(model, x):
    """Evaluation in its usual forms."""
    model.eval()
    model(x)
    with torch.no_grad():
        model(x)
    model.train()
    with torch.no_grad():
        model(x)
    model(x)  # a forward pass that nobody differentiates


def resumed(model, optimizer, form, arguments):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = Model(FORMS[form], **arguments)
    again.load_state_dict(torch.load(file))
    return again, torch.optim.SGD(again.parameters(), lr=1e-3)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True))


@pytest.mark.parametrize("select", ["top_k", "threshold"])
def test_one_bias_bit_for_bit_over_accumulation_checkpointing_evaluation_and_resume(select, full):
    truth, loads = trajectory(select=select)
    assert truth[-1][0].abs().max() > 0.02
    if select == "top_k":
        assert all(sum(counts) == BATCH * 5 * 2 for counts in itertools.chain(*loads))
    grid = list(itertools.product((1, 2, 4, 8), FORMS, (False, True), (False, True)))
    for parts, form, evaluate, resume in grid if full else grid[1::5]:  # 5 divides no side: all values meet
        got = trajectory(form, parts=parts, evaluate=evaluate, resume=resume, select=select)
        assert same(got[0], truth), (parts, form, evaluate, resume)
        assert got[1] == loads


@pytest.mark.parametrize("wrong", ["an update a micro-batch", "counted in the forward pass"])
def test_the_comparison_rejects(wrong):
    (biases, loads), (truth, true_loads) = trajectory(parts=4, wrong=wrong), trajectory()
    assert not (same(biases, truth) and loads == true_loads)


@pytest.mark.parametrize("balance", ["quantile", "histogram"])
def test_quantile_rules_see_each_token_once(balance):
    """Scores are of float64 products whose rounding follows the size of the micro-batch; counts are not."""
    truth, loads = trajectory(balance=balance)
    for parts, form, evaluate in itertools.product((1, 4), FORMS, (False, True)):
        got = trajectory(form, parts=parts, evaluate=evaluate, resume=True, balance=balance)
        assert got[1] == loads
        for a, b in zip(itertools.chain(*got[0]), itertools.chain(*truth), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_checkpoint_in_the_middle_of_a_step_holds_its_counts():
    for balance in ("sign", "histogram"):
        whole, first = Model(None, balance=balance), Model(None, balance=balance)
        x, y = batch(0).chunk(2)
        for part in (x, y):
            whole(part).square().sum().backward()
        first(x).square().sum().backward()
        second = copy.deepcopy(first)
        second.load_state_dict(first.state_dict())
        second(y).square().sum().backward()
        for a, b in zip(whole.layers, second.layers, strict=True):
            assert torch.equal(a.update_bias().counts, b.update_bias().counts)
            assert torch.equal(a.bias, b.bias)


def test_scores_that_a_checkpoint_does_not_hold_are_missed():
    model, other = Model(None, balance="quantile"), Model(None, balance="quantile")
    model(batch(0)).square().sum().backward()
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="scores of counted tokens are missing"):
        other.layers[0].update_bias()


def test_the_old_bias_selects():
    moe = Model(None).layers[0]
    x = batch(0).flatten(0, 1)
    before = moe.router(x, moe.bias).chosen.sum(0)
    moe(x).sum().backward()
    loads = moe.update_bias()
    assert torch.equal(loads.counts, before)
    assert moe.bias.any()
    assert not moe.loads.any()


def test_loads_of_text_that_is_looked_at_leave_the_counts_alone():
    model = Model(None)
    model(batch(0)).square().sum().backward()
    before = [layer.loads.clone() for layer in model.layers]
    model.eval()
    with nn.experts.expert_loads(model) as seen, torch.no_grad():
        for x in (batch(1), batch(2)):
            model(x)
    model(batch(3))
    assert list(seen) == ["layers.0", "layers.1"]
    for layer, counts, (total, tokens) in zip(model.layers, before, seen.values(), strict=True):
        assert torch.equal(layer.loads, counts)
        assert tokens == 2 * BATCH * 5
        assert int(total.sum()) == 2 * tokens
    first = sum(model.layers[0].router(batch(i).flatten(0, 1), model.layers[0].bias).chosen.sum(0) for i in (1, 2))
    assert torch.equal(seen["layers.0"].counts, first)


def test_a_skipped_step_is_forgotten():
    moe = Model(None).layers[0]
    moe(batch(0)).sum().backward()
    moe.discard_counts()
    with pytest.raises(ValueError, match="no token was counted"):
        moe.update_bias()


def test_a_penalty_that_reaches_no_loss_is_an_error():
    moe = nn.MoE(WIDTH, experts=4, top_k=1, hidden=4, penalty=nn.experts.Penalty(), generator=0)
    moe(batch(0).float()).sum().backward()
    with pytest.raises(ValueError, match="penalty of this step is in no loss"):
        moe.update_bias()
    with pytest.raises(ValueError, match="no MoE layer holds a penalty"):
        nn.experts.auxiliary_loss(torch.nn.Linear(2, 2))


def gradients(parts, *, scope="global", steps=2, kind="squared", exact=False, weighed=True):
    """Gradients of the penalties alone at the last of some steps, of micro-batches that hold unequal tokens."""
    model = Model(None, penalty=nn.experts.Penalty(kind=kind, weight=1.0, z_weight=0.1, scope=scope))
    for step in range(steps):
        x = batch(step)
        pieces = x.tensor_split([1, 3, 8][: parts - 1]) if parts < 8 else x.chunk(parts)
        if exact:
            with nn.experts.expert_loads(model) as seen, torch.no_grad():
                for piece in pieces:
                    model(piece)
            for name, loads in seen.items():
                model.get_submodule(name).expect(loads)
        model.zero_grad()
        for piece in pieces:
            model(piece).sum().mul(0.0).backward(retain_graph=True)
            share = len(piece) / BATCH if weighed else 1 / len(pieces)
            (nn.experts.auxiliary_loss(model) * share).backward()
        found = [layer.update_bias() for layer in model.layers]
    assert all(loads.tokens == BATCH * 5 for loads in found)
    return [layer.router.weight.grad for layer in model.layers]


def close(got, truth):
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(got, truth, strict=True))


@pytest.mark.parametrize("exact", [False, True], ids=["loads of the step before", "of a first pass"])
@pytest.mark.parametrize("kind", ["squared", "product", "entropy"])
def test_a_global_penalty_has_one_gradient_however_the_step_is_divided(kind, exact):
    truth = gradients(1, kind=kind, exact=exact)
    assert all(grad.abs().max() > 1e-4 for grad in truth)
    for parts in (2, 4, 8):
        assert close(gradients(parts, kind=kind, exact=exact), truth), parts
    assert not close(gradients(4, kind=kind, exact=exact, weighed=False), truth)
    for scope in ("batch", "sequence"):
        assert not close(gradients(4, kind=kind, scope=scope), truth), scope


@pytest.mark.parametrize("kind", ["squared", "product", "entropy"])
def test_with_a_first_pass_a_global_penalty_is_that_of_the_undivided_batch(kind):
    assert close(gradients(8, kind=kind, exact=True), gradients(1, kind=kind, scope="batch"))
    assert not close(gradients(8, kind=kind), gradients(1, kind=kind, scope="batch"))


def test_the_loads_of_a_global_penalty_are_saved_and_push_nowhere_at_first():
    make = {"experts": 8, "top_k": 2, "hidden": 4, "generator": 0}
    moe, other = (nn.MoE(WIDTH, **make, penalty=nn.experts.Penalty(scope="global")) for _ in range(2))
    moe(batch(0).float()).sum().mul(0.0).backward(retain_graph=True)
    nn.experts.auxiliary_loss(moe).backward()
    assert moe.router.weight.grad.abs().max() < 1e-8
    counts = moe.update_bias().counts
    other.load_state_dict(moe.state_dict())
    assert torch.equal(other.expected, counts)
    assert "expected" not in nn.MoE(WIDTH, **make, penalty=nn.experts.Penalty()).state_dict()
    with pytest.raises(ValueError, match="no penalty asks for loads"):
        nn.MoE(WIDTH, **make).expect(nn.experts.Loads(counts, 80))


def test_a_penalty_collected_outside_of_checkpoints_is_fine():
    model = Model(False, penalty=nn.experts.Penalty(weight=1.0))
    plain = Model(None, penalty=nn.experts.Penalty(weight=1.0))
    for one in (model, plain):
        for x in batch(0).chunk(2):
            (one(x).square().sum() + nn.experts.auxiliary_loss(one)).backward()
        [layer.update_bias() for layer in one.layers]
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    reentrant = Model(True, penalty=nn.experts.Penalty(weight=1.0))
    reentrant(batch(0).requires_grad_())
    with pytest.raises(ValueError, match="no MoE layer holds a penalty"):
        nn.experts.auxiliary_loss(reentrant)


RULES = ["sign", "rms", "quantile", "histogram"]


@pytest.mark.parametrize("select", ["top_k", "threshold"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_tokens_with_nan_are_not_counted(rule, select, bad):
    """NaN scores choose whichever experts come first, and moved the bias of these; the others' tokens decide."""
    settings = {"experts": 8, "top_k": 2, "hidden": 8, "select": select, "activation": "sigmoid", "generator": 0}
    settings["balance"] = rule
    moe, alone = nn.MoE(WIDTH, **settings).double(), nn.MoE(WIDTH, **settings).double()
    sound = batch(0).flatten(0, 1)
    mixed = torch.randperm(len(sound) + 5, generator=torch.Generator().manual_seed(0))
    broken = torch.cat([sound, torch.full((5, WIDTH), bad, dtype=torch.float64)])[mixed]
    with nn.experts.expert_loads(moe) as seen:
        moe(broken).nansum().backward()
    alone(sound).sum().backward()
    expected = alone.update_bias()
    found = moe.update_bias()
    assert found.tokens == seen[""].tokens == expected.tokens == len(sound)
    assert found.counts.tolist() == seen[""].counts.tolist() == expected.counts.tolist()
    torch.testing.assert_close(moe.bias, alone.bias, rtol=0, atol=1e-7)


def test_nothing_but_nan_is_no_token():
    moe = nn.MoE(WIDTH, experts=4, top_k=2, hidden=8, generator=0)
    moe(torch.full((3, WIDTH), math.nan)).sum().backward()
    with pytest.raises(ValueError, match=r"no token was counted .* Tokens with NaN are not counted"):
        moe.update_bias()
    assert not moe.bias.any()
