"""What verify certifies, what is replayed, and losses in narrow dtypes: against the plain gradient and float64."""

import collections
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from spectrain.objectives import Contrastive, info_nce, supervised_contrastive, verify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import BatchEncoding


def encoder(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), *middle, nn.Tanh(), nn.Linear(32, 8)).double()


def pairs(n=24):
    return torch.randn(2, n, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).unbind()


def gradient(model):
    out = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return out


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


MIXING = {
    "batch normalisation": lambda: [nn.BatchNorm1d(32)],
    "centred": lambda: [Centred()],
    "batch normalisation and dropout": lambda: [nn.BatchNorm1d(32), nn.Dropout(0.3)],
    "centred and dropout": lambda: [nn.Dropout(0.3), Centred()],
}


@pytest.mark.parametrize("middle", MIXING.values(), ids=MIXING)
def test_verify_sees_examples_that_depend_on_each_other(middle):
    x, y = pairs()
    report = verify(Contrastive(encoder(*middle()), info_nce, chunk=6, batch_norm="per chunk"), x, y)
    assert not report.holds, str(report)
    assert max(report.difference, report.mixing) > 0.05


def test_the_difference_that_verify_reports_is_the_one_to_the_plain_gradient():
    model, (x, y) = encoder(nn.BatchNorm1d(32)), pairs()
    report = verify(Contrastive(model, info_nce, chunk=6, batch_norm="per chunk"), x, y)
    info_nce(model(x), model(y)).backward()
    truth = gradient(model)
    Contrastive(model, info_nce, chunk=6, batch_norm="per chunk").backward(x, y)
    assert report.difference == pytest.approx(relative(gradient(model), truth), rel=1e-6)


@pytest.mark.parametrize("middle", [[], [nn.Dropout(0.3)], [nn.LayerNorm(32), nn.Dropout(0.1)]], ids=str)
def test_verify_holds_where_examples_are_alone(middle):
    x, y = pairs()
    for towers in ((x, y), (list(x), list(y))):
        collate = torch.stack if isinstance(towers[0], list) else None
        report = verify(Contrastive(encoder(*middle), info_nce, chunk=5, collate=collate), *towers)
        assert report.holds, str(report)
        assert report.mixing == 0


def drawn(*shape):
    """From NumPy and from Python."""
    return torch.from_numpy(np.random.rand(*shape) > 0.4) * (0.5 + random.random())


class Noisy(nn.Module):
    """Multiplies by what it draws, and remembers it."""

    def __init__(self):
        super().__init__()
        self.factors = []

    def forward(self, x):
        self.factors.append(drawn(*x.shape))
        return x * self.factors[-1]


@pytest.mark.parametrize("collated", [False, True])
def test_randomness_of_numpy_and_python_is_replayed(collated):
    noisy, (x, y) = Noisy(), pairs()
    model = encoder() if collated else encoder(noisy)
    towers = (list(x), list(y)) if collated else (x, y)
    collate = (lambda examples: noisy(torch.stack(examples))) if collated else None
    np.random.seed(3)
    Contrastive(model, info_nce, chunk=5, collate=collate).backward(*towers)
    after, got, factors = np.random.rand(), gradient(model), noisy.factors
    first, second = (torch.cat(half) for half in (factors[:10], factors[10:]))
    assert torch.equal(first, second)
    np.random.seed(3)
    for part in factors[:10]:
        np.random.rand(*part.shape)
    assert np.random.rand() == after  # what follows draws as after one pass

    def plain(sides, masks):
        if collated:
            return info_nce(*(model(side * mask) for side, mask in zip(sides, masks, strict=True)))
        return info_nce(*(model[2:](model[0](side) * mask) for side, mask in zip(sides, masks, strict=True)))

    plain((x, y), first.split(24)).backward()
    assert relative(got, gradient(model)) < 1e-14
    plain((x, y), first.flip(0).split(24)).backward()  # other draws: the comparison sees them
    assert relative(got, gradient(model)) > 0.1


def test_what_a_loss_draws_is_drawn_once():
    model, (x, y) = encoder(), pairs()
    torch.manual_seed(0)
    drawn = [torch.rand(()).item() for _ in range(3)]
    torch.manual_seed(0)
    seen = []

    def loss(u, v):
        seen.append(torch.rand(()).item())
        return (u * v).sum()

    for _ in range(3):
        Contrastive(model, loss, chunk=5).backward(x, y)
    assert seen == drawn


def own_generator():
    draw = torch.Generator().manual_seed(0)
    model = encoder()
    return lambda x: model(x * torch.rand(x.shape, generator=draw, dtype=x.dtype))


def counting():
    model, calls = encoder(), []
    return lambda x: (calls.append(1), model(x) * len(calls))[1]


def reseeding():
    model = encoder(nn.Dropout(0.5))
    return lambda x: (torch.seed(), model(x))[1]


@pytest.mark.parametrize("make", [own_generator, counting, reseeding])
def test_an_encoder_that_does_not_repeat_itself_is_refused(make):
    with pytest.raises(RuntimeError, match="other embeddings of the same examples"):
        Contrastive(make(), info_nce, chunk=5).backward(*pairs())


HOLDERS = {
    "BatchEncoding": lambda x: BatchEncoding({"x": x, "kind": "text"}),
    "user's dictionary": lambda x: collections.UserDict(x=x, kind="text"),
    "nested": lambda x: {"inner": collections.UserDict(x=x)},
    "NumPy": lambda x: {"x": x.numpy()},
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_any_mapping_is_cut_like_a_dictionary(hold):
    model, (x, y) = encoder(), pairs()
    kinds = set()

    def read(batch):
        kinds.add(type(batch))
        batch = batch.get("inner", batch)
        return model(torch.as_tensor(batch["x"]))

    info_nce(model(x), model(y)).backward()
    truth = gradient(model)
    Contrastive(read, info_nce, chunk=5).backward(hold(x), hold(y))
    assert relative(gradient(model), truth) < 1e-14
    assert kinds == {type(hold(x))}


LOSSES = {
    "info_nce": lambda u, v: info_nce(u, v, v.flip(0), symmetric=True),
    "info_nce, lengths as they are": lambda u, v: info_nce(u, v, temperature=30.0, normalize=False),
    "supervised": lambda u, v: supervised_contrastive(torch.cat((u, v)), torch.arange(2 * len(u)) % 5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [False, True], ids=["plain", "autocast"])
def test_narrow_losses_are_those_of_float64(loss, dtype, inside):
    u, v = (40 * part for part in torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(0)))
    held = [part if inside else part.to(dtype) for part in (u, v)]
    leaves = [part.clone().requires_grad_() for part in held]
    exact = [part.double().requires_grad_() for part in held]
    with torch.autocast("cpu", dtype=dtype, enabled=inside):
        got = loss(*leaves)
    assert got.dtype == torch.float32
    wanted = loss(*exact)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)
    got.backward()
    wanted.backward()
    for a, b in zip(leaves, exact, strict=True):
        assert relative(a.grad.double(), b.grad) < (1e-5 if inside else 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-14, 1e25, 1e36])
def test_unit_vectors_have_no_scale(scale):
    u, v = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    wanted = info_nce(u.double(), v.double()).item()
    assert info_nce(u * scale, v * scale).item() == pytest.approx(wanted, rel=1e-5)
    leaf = u.clone().requires_grad_()
    info_nce(leaf, v).backward()
    scaled = (u * scale).requires_grad_()
    if scale >= 1e-30:
        info_nce(scaled, v).backward()
        torch.testing.assert_close(scaled.grad * scale, leaf.grad, rtol=1e-4, atol=1e-7)


def test_the_slope_by_temperature_keeps_its_digits_where_pairs_are_found():
    u = torch.nn.functional.normalize(torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        heat = torch.tensor(0.05, dtype=dtype, requires_grad=True)
        info_nce(u.to(dtype), u.to(dtype), temperature=heat).backward()
        slopes.append(heat.grad.item())
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_towers_of_two_dtypes_and_an_infinite_temperature():
    u, v = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    got = info_nce(u.bfloat16(), v, v.half())
    assert got.item() == pytest.approx(info_nce(u.bfloat16().double(), v.double(), v.half().double()).item(), rel=1e-5)
    with pytest.raises(ValueError, match="positive and finite, got inf"):
        info_nce(u, v, temperature=float("inf"))
