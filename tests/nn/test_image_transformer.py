"""The transformer of pictures: what it is told matters, where patches lie matters, its gradient is right."""

import pytest
import torch

from spectrain.nn import ImageTransformer
from spectrain.nn._models.image_transformer import _image, _patches, _Times


def model(**changes):
    sizes = {"size": 8, "channels": 2, "patch": 4, "width": 16, "depth": 2, "heads": 2, "classes": 3, "generator": 0}
    made = ImageTransformer(**{**sizes, **changes}).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=draw, dtype=p.dtype), alpha=0.2)
    return made


X = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
R, T = torch.tensor([0.0, 0.2, 0.5]).double(), torch.tensor([1.0, 0.4, 0.5]).double()


def test_everything_it_is_told_matters():
    net, labels = model(), torch.tensor([0, 1, 2])
    out = net(X, R, T, labels=labels)
    for other in (net(X, R / 2, T, labels=labels), net(X, R, T / 2 + R / 2, labels=labels), net(X, R, T)):
        assert (other - out).abs().amax(dim=(1, 2, 3)).max() > 1e-3
    assert torch.equal(net(X, R, T), net(X, R, T, labels=torch.full((3,), 3)))
    assert (net(X.roll(4, dims=3), R, T).roll(-4, dims=3) - net(X, R, T)).abs().max() > 1e-3  # places matter


def test_examples_do_not_see_each_other():
    net = model()
    one = torch.cat([net(X[i : i + 1], R[i : i + 1], T[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(X, R, T), one, rtol=1e-12, atol=1e-12)


def test_gradients():
    net = model(depth=1, width=8)
    assert torch.autograd.gradcheck(lambda x, r, t: net(x, r, t), tuple(v.clone().requires_grad_() for v in (X, R, T)))


def speed(times):
    """How fast untrained time features change, beside their size: what a derivative by time multiplies."""
    t = torch.linspace(0, 1, 101)
    out, change = torch.autograd.functional.jvp(times, t, torch.ones_like(t))
    return (change.norm() / out.norm()).item()


class Short(_Times):
    """Periods from 1/16 to 16."""

    def forward(self, t):
        angles = 2 * torch.pi * t[:, None] * torch.exp2(torch.linspace(-4, 4, self.up.in_features // 2))
        return self.down(torch.nn.functional.silu(self.up(torch.cat((angles.sin(), angles.cos()), dim=1))))


def test_time_features_change_no_faster_than_a_velocity_does():
    torch.manual_seed(0)
    assert speed(_Times(64)) < 8
    assert speed(Short(64)) > 16  # of these, derivatives by time are mostly noise


def test_the_generator_decides_and_the_global_one_is_left_alone():
    state = torch.get_rng_state()
    sizes = {"size": 8, "channels": 1, "patch": 2, "width": 16, "depth": 1, "heads": 2}
    a, b, c = (ImageTransformer(**sizes, generator=seed).embed.weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [{"patch": 3}, {"heads": 3}, {"width": 15, "heads": 1}, {"patch": 0}])
def test_impossible_shapes(bad):
    with pytest.raises(ValueError, match=r"ImageTransformer( needs|: patch must be)"):
        model(**bad)


def test_patches_are_torchs_and_come_together_again():
    cut = _patches(X, 4)
    assert torch.equal(cut, torch.nn.functional.pixel_unshuffle(X, 4).flatten(2).mT)
    assert torch.equal(_image(cut, 4, like=X), X)
