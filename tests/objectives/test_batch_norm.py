"""Accumulation through batch normalisation, against torch's own over the whole batch in one graph."""

import copy

import pytest
import torch
from torch import nn

from spectrain.objectives import Contrastive, info_nce, verify


class Image(nn.Module):
    """Convolutions, two-dimensional and flat normalisations, one of them used twice, one inside of a branch."""

    def __init__(self):
        super().__init__()
        self.conv, self.first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.map, self.twice = nn.Linear(16, 6), nn.BatchNorm1d(6, momentum=None)
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        x = self.first(self.conv(x)).relu()
        x = self.twice(self.map(x.flatten(1)))
        return self.out(x + self.twice(x.tanh()))


def perceptron(*middle):
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), *middle, nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)
    )


MODELS = {
    "two layers": (perceptron, (12, 6)),
    "one layer, momentum of its own": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=0.3)),
        (12, 6),
    ),
    "without running statistics": (
        lambda: nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 4)),
        (12, 6),
    ),
    "convolutions, one module twice": (Image, (12, 1, 4, 4)),
    "sequences": (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(15, 4)), (12, 3, 5)),
}


def pair(name):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().double()
    with torch.no_grad():
        [p.add_(0.3 * torch.randn_like(p)) for p in model.parameters()]
    return model, *torch.randn(2, *shape, dtype=torch.float64)


def whole(model, x, y):
    """Torch's own: one graph, statistics of the batch, running statistics once a tower."""
    loss = info_nce(model(x), model(y))
    loss.backward()
    return loss.detach()


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("chunk", [1, 5, 12])
@pytest.mark.parametrize("name", MODELS)
def test_loss_gradient_and_running_statistics_are_those_of_the_whole_batch(name, chunk):
    model, x, y = pair(name)
    other = copy.deepcopy(model)
    truth = whole(model, x, y)
    found = Contrastive(other, info_nce, chunk=chunk, batch_norm="exact").backward(x, y)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(other), gradients(model), rtol=1e-9, atol=1e-12)
    for (where, a), b in zip(other.named_buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=where)
    assert not any("forward" in vars(module) for module in other.modules())


@pytest.mark.parametrize("name", MODELS)
def test_per_chunk_and_statistics_without_a_derivative_are_something_else(name, monkeypatch):
    model, x, y = pair(name)
    whole(model, x, y)
    truth = gradients(model)
    from spectrain.objectives import _batch_norm

    def distance(**how):
        model.zero_grad()
        Contrastive(model, info_nce, chunk=4, **how).backward(x, y)
        return float((gradients(model) - truth).norm() / truth.norm())

    assert distance(batch_norm="per chunk") > 1e-2
    assert distance(batch_norm="exact") < 1e-10
    monkeypatch.setattr(_batch_norm.BatchNorms, "send_back", lambda *_: None)
    on_data = name in ("without running statistics", "sequences")  # statistics of what no parameter has made
    assert (distance(batch_norm="exact") > 1e-2) != on_data


def test_verify_says_that_it_holds_and_two_towers_may_differ():
    model, x, y = pair("two layers")
    assert verify(Contrastive(model, info_nce, chunk=5, batch_norm="exact"), x, y).holds
    other = perceptron().double()
    report = verify(Contrastive([model, other], info_nce, chunk=5, batch_norm="exact"), x, y)
    assert report.holds, report


def test_dropout_masks_are_replayed_and_differ_between_chunks():
    torch.manual_seed(0)
    drops = nn.Dropout(0.5)
    model, masks = perceptron(drops).double(), []
    drops.register_forward_hook(lambda module, inputs, output: masks.append(output.detach() != 0))
    x, y = torch.randn(2, 12, 6, dtype=torch.float64)
    Contrastive(model, info_nce, chunk=4, batch_norm="exact").backward(x, y)
    drawn = {tuple(mask.flatten().tolist()) for mask in masks}
    assert len(drawn) == 6  # three chunks of two towers, each with one mask in all of its passes
    assert len(masks) > 20


def test_what_cannot_be_exact_is_refused():
    x = torch.randn(4, 6)
    with pytest.raises(ValueError, match="needs encoders that are modules"):
        Contrastive(lambda x: x, info_nce, chunk=2, batch_norm="exact").backward(x, x)
    with pytest.raises(ValueError, match="does not know SyncBatchNorm"):
        Contrastive(
            nn.Sequential(nn.Linear(6, 6), nn.SyncBatchNorm(6)), info_nce, chunk=2, batch_norm="exact"
        ).backward(x, x)
