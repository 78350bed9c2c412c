"""The gradient in chunks is the gradient of the whole batch; what is not, is refused or seen."""

import copy
import functools

import pytest
import torch
from torch import nn

from spectrain.objectives import Contrastive, info_nce, supervised_contrastive, verify
from spectrain.objectives._chunks import by_tokens


def encoder(*, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 8)).double()


def pairs(n=24):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, n, 6, generator=draw, dtype=torch.float64).unbind()


def gradient(*models):
    return torch.cat([p.grad.flatten() for model in models for p in model.parameters()])


def whole(model, loss, *inputs, **keywords):
    """The plain gradient, by autograd, of one graph."""
    other = copy.deepcopy(model)
    other.zero_grad()
    loss(*(other(x) for x in inputs), **keywords).backward()
    return gradient(other)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


LOSSES = {
    "one-sided": info_nce,
    "symmetric": functools.partial(info_nce, symmetric=True),
    "blocks of 5": functools.partial(info_nce, symmetric=True, block=5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("chunk", [1, 5, 8, 24, 100])
def test_without_dropout_the_chunks_do_not_matter(loss, chunk):
    model = encoder()
    x, y = pairs()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    truth, permuted = whole(model, loss, x, y), whole(model, loss, x[order], y[order])
    value = Contrastive(model, loss, chunk=chunk).backward(x, y)
    assert relative(gradient(model), truth) <= max(4 * relative(permuted, truth), 1e-15)
    assert value.item() == pytest.approx(loss(model(x), model(y)).item(), rel=1e-14)


def dense(u, v, w, heat, *, symmetric):
    """The definition, with every similarity at once and autograd's own derivatives."""
    u, v, w = (nn.functional.normalize(part, dim=1) for part in (u, v, w))
    own = torch.arange(len(u))
    loss = nn.functional.cross_entropy(u @ torch.cat((v, w)).mT / heat, own)
    return (loss + nn.functional.cross_entropy(v @ u.mT / heat, own)) / 2 if symmetric else loss


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("block", [1, 5, 24, 100])
def test_gradients_in_blocks_are_those_of_the_definition(symmetric, block):
    x, y = pairs()
    w = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    leaves = [part.clone().requires_grad_() for part in (x, y, w, torch.tensor(0.3, dtype=torch.float64))]

    def info(u, v, w, heat):
        return info_nce(u, v, w, temperature=heat, symmetric=symmetric, block=block)

    truth = dense(*leaves, symmetric=symmetric)
    wanted = torch.autograd.grad(truth, leaves)
    for weight in (1.0, -2.5):
        loss = info(*leaves)
        torch.testing.assert_close(loss, truth, rtol=1e-13, atol=0)
        for found, right in zip(torch.autograd.grad(weight * loss, leaves), wanted, strict=True):
            torch.testing.assert_close(found, weight * right, rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(info(*leaves), truth.detach(), rtol=1e-13, atol=0)


def test_a_second_derivative_is_refused():
    x, y = (part.requires_grad_() for part in pairs())
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(info_nce(x, y), x, create_graph=True)


def plain_accumulation(model, x, y):
    for part in range(0, len(x), 4):
        (info_nce(model(x[part : part + 4]), model(y[part : part + 4])) / (len(x) // 4)).backward()


def own_documents_only(model, x, y):
    Contrastive(model, lambda u, v: info_nce(u, v.detach()), chunk=4).backward(x, y)


WRONG = {"plain accumulation": plain_accumulation, "half": own_documents_only}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_gradients(wrong):
    model = encoder()
    x, y = pairs()
    truth = whole(model, info_nce, x, y)
    wrong(model, x, y)
    assert relative(gradient(model), truth) > 1e-2


@pytest.mark.parametrize("chunk", [4, 7, 24])
def test_with_dropout_it_is_the_gradient_under_the_same_masks(chunk):
    model = encoder(dropout=0.4)
    x, y = pairs()
    torch.manual_seed(3)
    u, v = (torch.cat([model(part) for part in side.split(chunk)]) for side in (x, y))
    info_nce(u, v).backward()
    after = torch.get_rng_state()
    truth = gradient(model)
    model.zero_grad()
    torch.manual_seed(3)
    Contrastive(model, info_nce, chunk=chunk).backward(x, y)
    assert relative(gradient(model), truth) < 1e-14
    assert torch.equal(torch.get_rng_state(), after)  # what follows draws as after a plain forward pass


def test_simcse_both_views_from_one_text():
    model = encoder(dropout=0.1)
    x, _ = pairs()
    report = verify(Contrastive(model, info_nce, chunk=6), x, x)
    assert report.holds
    assert not torch.equal(model(x), model(x))


def test_two_towers_hard_negatives_labels_outputs_and_a_learned_temperature():
    left, right = encoder(), encoder(seed=1)
    x, y = pairs()
    negatives = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_temperature = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

        def forward(self, u, v, w):
            return info_nce(u, v, w, temperature=self.log_temperature.exp())

    loss = Learned()
    loss(left(x), right(y), right(negatives)).backward()
    truth = gradient(left, right, loss)
    for module in (left, right, loss):
        module.zero_grad()
    Contrastive([left, right, right], loss, chunk=5).backward(x, y, negatives)
    assert relative(gradient(left, right, loss), truth) < 1e-14

    class TwoOutputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.extra = encoder(), nn.Linear(8, 3).double()

        def forward(self, x):
            return self.body(x), self.extra(self.body(x))

    def both(outputs, labels):
        return supervised_contrastive(outputs[0], labels) + outputs[1].square().mean()

    model, labels = TwoOutputs(), torch.arange(24) % 5
    report = verify(Contrastive(model, both, chunk=7), x, labels=labels)
    assert report.holds, str(report)


def test_supervised_loss_is_its_definition():
    h = nn.functional.normalize(torch.randn(7, 4, dtype=torch.float64), dim=1)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    terms = []
    for i in range(7):
        positives = [p for p in range(7) if p != i and labels[p] == labels[i]]
        if positives:
            others = torch.tensor([j for j in range(7) if j != i])
            denominator = (h[others] @ h[i] / 0.1).logsumexp(0)
            terms.append(sum(denominator - h[p] @ h[i] / 0.1 for p in positives) / len(positives))
    truth = (sum(terms) / len(terms)).item()
    assert supervised_contrastive(h, labels, block=3).item() == pytest.approx(truth, rel=1e-13)
    assert supervised_contrastive(h, labels[[1, 0, 2, 3, 4, 5, 6]]).item() != pytest.approx(truth, rel=1e-3)


def test_ragged_examples_by_a_budget_of_tokens():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(50, 8, padding_idx=0).double()

        def forward(self, padded):
            return self.table(padded).sum(1) / (padded > 0).sum(1, keepdim=True)

    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(1, 50, (int(n),), generator=draw) for n in torch.randint(1, 12, (30,), generator=draw)]
    collate = functools.partial(nn.utils.rnn.pad_sequence, batch_first=True)
    model = Bag()
    info_nce(model(collate(texts)), model(collate(texts[::-1]))).backward()
    truth = gradient(model)
    model.zero_grad()
    seen = []
    model.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].numel()))
    Contrastive(model, info_nce, tokens=24, collate=collate).backward(texts, texts[::-1])
    assert relative(gradient(model), truth) < 1e-14
    assert max(seen) <= 24
    assert len(seen) > 8


def test_chunks_by_tokens_hold_every_example_once():
    lengths = [7, 1, 1, 9, 3, 3, 3, 2]
    parts = by_tokens(lengths, budget=9)
    assert sorted(torch.cat(parts).tolist()) == list(range(8))
    assert all(len(part) * max(lengths[i] for i in part.tolist()) <= 9 for part in parts)


def test_batch_statistics_are_refused_or_counted_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).double()
    x, y = pairs(8)
    with pytest.raises(ValueError, match=r"1 is a BatchNorm1d in training mode"):
        Contrastive(model, info_nce, chunk=4).backward(x, y)
    assert all(p.grad is None for p in model.parameters())
    plain = copy.deepcopy(model)
    for part in (*x.split(4), *y.split(4)):
        plain(part)
    Contrastive(model, info_nce, chunk=4, batch_norm="per chunk").backward(x, y)
    torch.testing.assert_close(model[1].running_mean, plain[1].running_mean)
    assert model[1].num_batches_tracked == 4
    model.eval()
    assert verify(Contrastive(model, info_nce, chunk=4), x, y).holds


def test_an_encoder_that_changes_itself_is_refused_by_name():
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8)).double()
    x, y = pairs(8)
    with pytest.raises(ValueError, match=r"changes the buffer .*\._u"):
        Contrastive(model, info_nce, chunk=4).backward(x, y)


def test_verify_leaves_everything_as_it_was_and_sees_a_wrong_gradient():
    model = encoder(dropout=0.2)
    x, y = pairs()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = torch.get_rng_state()
    assert verify(Contrastive(model, info_nce, chunk=5), x, y).holds
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert torch.equal(torch.get_rng_state(), state)

    class Careless(Contrastive):
        def _replay(self, encoders, towers, chunks, pulls):
            super()._replay(encoders, towers, chunks[1:], pulls)

    report = verify(Careless(model, info_nce, chunk=5), x, y)
    assert not report.holds
    assert "NOT the same" in str(report)


def test_gradients_accumulate_and_scale():
    model = encoder()
    x, y = pairs()
    contrastive = Contrastive(model, info_nce, chunk=8)
    contrastive.backward(x, y)
    once = gradient(model).clone()
    contrastive.backward(x, y, scale=0.5)
    torch.testing.assert_close(gradient(model), 1.5 * once, rtol=1e-13, atol=0)


BAD = {
    "no size": (lambda m, x: Contrastive(m, info_nce), "exactly one of chunk= and tokens="),
    "zero chunk": (lambda m, x: Contrastive(m, info_nce, chunk=0), "chunk must be at least 1, got 0"),
    "no tower": (lambda m, x: Contrastive(m, info_nce, chunk=2).backward(), "at least one tower"),
    "empty": (lambda m, x: Contrastive(m, info_nce, chunk=2).backward(x[:0], x[:0]), "no example"),
    "encoders": (lambda m, x: Contrastive([m], info_nce, chunk=2).backward(x, x), "1 encoders but got 2 towers"),
    "one example": (lambda m, x: Contrastive(m, info_nce, chunk=2).backward(x[:1], x[:1]), "nothing to tell apart"),
    "counts": (lambda m, x: Contrastive(m, info_nce, chunk=2).backward(x, x[:3]), "24 queries and 3 documents"),
    "tokens": (lambda m, x: Contrastive(m, info_nce, tokens=9).backward(x, x), "needs a list of examples"),
    "long": (
        lambda m, x: Contrastive(m, info_nce, tokens=5).backward(list(x), list(x)),
        "has 6 tokens, more than the budget of 5",
    ),
    "vector": (lambda m, x: Contrastive(m, lambda u: u.sum(1), chunk=2).backward(x), "one finite number"),
    "nan": (lambda m, x: Contrastive(m, lambda u: u.sum() / 0, chunk=2).backward(x), "one finite number"),
    "mean": (lambda m, x: Contrastive(lambda c: m(c).mean(0), info_nce, chunk=2).backward(x), "count examples"),
    "temperature": (lambda m, x: info_nce(x, x, temperature=0.0), "temperature must be positive"),
    "lonely": (lambda m, x: supervised_contrastive(x, torch.arange(24)), "no label occurs twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_refused_before_any_gradient(name):
    model = encoder()
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call(model, pairs()[0])
    assert all(p.grad is None for p in model.parameters())
