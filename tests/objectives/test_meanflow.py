"""On normal data everything is known: the exact average velocity is where each objective stands still."""

import pytest
import torch
from torch import nn

from spectrain.objectives import MeanFlow
from spectrain.objectives._jvp import jvp

C = 0.3  # data are normal with this standard deviation, noise with 1
COUNT = 100_000


def s(t):
    return (t**2 + (1 - t) ** 2 * C**2).sqrt()


def velocity(x, t):
    return x * (t - (1 - t) * C**2) / s(t) ** 2


def average(x, r, t):
    """The closed form, also where the interval is a point."""
    short = (t - r) < 1e-4
    apart = torch.where(short, torch.ones_like(t), t - r)
    return torch.where(short, velocity(x, (t + r) / 2), x * (1 - s(r) / s(t)) / apart)


class Scaled(nn.Module):
    """The exact average velocity, off by a factor that training would have to find."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x, r, t):
        return self.factor * average(x[:, 0], r, t)[:, None]


def push(factor, objective, *, flow=MeanFlow):
    """The derivative of the objective by the factor, in standard errors."""
    model = Scaled(factor)
    draw = torch.Generator().manual_seed(0)
    data = C * torch.randn(COUNT, 1, generator=draw, dtype=torch.float64)
    parts = []
    made = flow(model, objective=objective, law="uniform", instants=0.25, power=0)
    for part in data.split(COUNT // 100):
        model.factor.grad = None
        made(part, generator=draw).backward()
        parts.append(model.factor.grad)
    parts = torch.stack(parts)
    return (parts.mean() / (parts.std() / len(parts) ** 0.5)).item()


@pytest.mark.parametrize("objective", ["full", "model", "data", "flow", "shortcut"])
def test_the_exact_average_velocity_is_where_it_stands_still(objective):
    assert abs(push(1.0, objective)) < 4
    assert push(0.9, objective) < -8
    assert push(1.1, objective) > 8


def test_with_the_data_in_the_bracket_and_all_gradients_it_does_not_stand_still():
    """Article 10958: what is regressed on leaks into what regresses."""
    assert abs(push(1.0, "leaky")) > 8


class OneHalf(MeanFlow):
    def _halves(self, x, r, t, target, condition):
        found, late = super()._halves(x, r, t, target, condition), self.u(x, (r + t) / 2, t)
        return torch.where((r < t)[:, None], late, found)


class FromTheSamePlace(MeanFlow):
    def _halves(self, x, r, t, target, condition):
        s = (r + t) / 2
        return torch.where((r < t)[:, None], (self.u(x, s, t) + self.u(x, r, s)) / 2, target)


class NoInterval(MeanFlow):
    def _change(self, x, r, t, w, condition):
        return super()._change(x, r, t, torch.zeros_like(w), condition)


class WrongSign(MeanFlow):
    def _change(self, x, r, t, w, condition):
        value, change = super()._change(x, r, t, w, condition)
        return value, -change


class Twice(MeanFlow):
    def _change(self, x, r, t, w, condition):
        value, change = super()._change(x, r, t, w, condition)
        return value, 2 * change


WRONG = [(objective, flow) for objective in ("full", "model", "data") for flow in (NoInterval, Twice)]
WRONG += [("model", WrongSign), ("data", WrongSign), ("shortcut", OneHalf), ("shortcut", FromTheSamePlace)]


@pytest.mark.parametrize(("objective", "flow"), WRONG)
def test_the_check_rejects_wrong_derivatives(objective, flow):
    assert abs(push(1.0, objective, flow=flow)) > 8


def test_constant_brackets_have_the_gradient_of_the_published_form():
    """The loss |u - constant|^2 with the constant x_1 - x_0 - (t - r) D has the same gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    def u(x, r, t):
        return net(torch.cat((x, r[:, None], t[:, None]), dim=1))

    flow = MeanFlow(u, power=1.0, floor=1e-3, instants=0.5)
    data = torch.randn(32, 2, dtype=torch.float64)
    flow(data, generator=torch.Generator().manual_seed(1)).backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()

    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(32, 2, generator=draw, dtype=torch.float64)
    r, t = (part.double() for part in flow.intervals(32, draw))
    x = (1 - t)[:, None] * data + t[:, None] * noise
    h = 1e-6  # central differences along the path, instead of the forward mode
    with torch.no_grad():
        step = (noise - data) * h
        change = (u(x + step, r, t + h) - u(x - step, r, t - h)) / (2 * h)
        target = noise - data - (t - r)[:, None] * change
    error = (u(x, r, t) - target).square().sum(1)
    (error / (error.detach() + 1e-3)).mean().backward()
    for a, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-6, atol=1e-9)


def test_one_step_of_the_average_velocity_is_a_sample_and_of_the_instant_velocity_the_mean():
    noise = torch.randn(2000, 1, dtype=torch.float64)
    model = Scaled()
    one = MeanFlow(model).sample(noise)
    torch.testing.assert_close(one, C * noise, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(MeanFlow(model).sample(noise, steps=7), C * noise, rtol=1e-12, atol=1e-12)
    euler = MeanFlow(model, objective="flow")
    assert euler.sample(noise).abs().max() < 1e-12
    many = [(euler.sample(noise, steps=steps) - C * noise).abs().max().item() for steps in (64, 128)]
    assert many[1] == pytest.approx(many[0] / 2, rel=0.1)  # Euler's error halves with the step


class Labelled(nn.Module):
    """A table of velocities by label: what guidance mixes is plain to see."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0], [5.0]]), freeze=False)

    def forward(self, x, r, t, *, labels):
        return self.table(labels) + 0 * x


def test_guidance_moves_the_target_as_published():
    flow = MeanFlow(Labelled(), guidance=3.0, kappa=0.5, null=2)
    labels, kept = torch.tensor([0, 1, 2]), torch.tensor([True, True, False])
    towards = torch.tensor([[10.0], [20.0], [30.0]])
    found = flow._guided(torch.zeros(3, 1), torch.ones(3), towards, labels, kept)
    wanted = torch.tensor([[30 + 0.5 * 1 - 2.5 * 5], [60 + 0.5 * 2 - 2.5 * 5], [30.0]])
    torch.testing.assert_close(found, wanted)
    assert flow(torch.randn(64, 1), torch.zeros(64, dtype=torch.long)).isfinite()


def test_a_model_with_attention_and_autocast_has_its_derivative():
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x, r, t):
            q, k, v = (self.qkv(x) + r[:, None, None] * t[:, None, None]).chunk(3, dim=-1)
            return nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]

    model = Tokens()
    for objective in ("full", "model", "data"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = MeanFlow(model, objective=objective, instants=0)(torch.randn(4, 5, 8))
        loss.backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in model.parameters())


def test_forward_mode_is_the_derivative():
    f = lambda x, t: (x * t[:, None]).sin()  # noqa: E731
    x, t = torch.randn(3, 2, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    w = torch.randn_like(x)
    _, change = jvp(f, (x, t), (w, torch.ones_like(t)))
    torch.testing.assert_close(change, (x * t[:, None]).cos() * (w * t[:, None] + x))


def test_draws_depend_on_the_generator_only():
    flow = MeanFlow(lambda x, r, t: x)
    data = torch.randn(16, 3)
    state = torch.get_rng_state()
    a, b = (flow(data, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)
    assert flow(data, generator=torch.Generator().manual_seed(6)) != a


def test_parts_of_a_draw_make_the_whole():
    torch.manual_seed(0)
    net = nn.Linear(3, 3).double()
    flow = MeanFlow(lambda x, r, t: net(x) * t[:, None], instants=0.5)
    drawn = flow.draw(torch.randn(10, 3, dtype=torch.float64), generator=torch.Generator().manual_seed(1))
    flow.loss(drawn).backward()
    whole = net.weight.grad.clone()
    net.weight.grad = None
    for part in drawn.split(4):
        (flow.loss(part) * len(part.x) / 10).backward()
    torch.testing.assert_close(net.weight.grad, whole, rtol=1e-12, atol=1e-14)


BAD = {
    "objective": (lambda: MeanFlow(Scaled(), objective="mean"), ValueError, "knows the objectives full, model"),
    "guidance": (lambda: MeanFlow(Scaled(), guidance=2.0), ValueError, "say which label is none: null="),
    "labels": (lambda: MeanFlow(Scaled(), guidance=2.0, null=0)(torch.ones(2, 1)), ValueError, "guidance needs labels"),
    "empty": (lambda: MeanFlow(Scaled())(torch.ones(0, 1)), ValueError, "no example"),
    "steps": (lambda: MeanFlow(Scaled()).sample(torch.ones(1, 1), steps=0), ValueError, "at least one step"),
    "law": (lambda: MeanFlow(Scaled(), law="beta")(torch.ones(2, 1)), ValueError, "knows the laws"),
    "instants": (lambda: MeanFlow(Scaled(), instants=2)(torch.ones(2, 1)), ValueError, "0 <= instants <= 1"),
    "power": (lambda: MeanFlow(Scaled(), power=-1), ValueError, "power >= 0"),
    "dropout": (
        lambda: MeanFlow(nn.Sequential(nn.Dropout(0.1)))(torch.ones(2, 1)),
        ValueError,
        "0 drops out with p=0.1",
    ),
    "nan": (
        lambda: MeanFlow(lambda x, r, t: x / 0)(torch.ones(2, 1)),
        FloatingPointError,
        "the velocity is not finite at 2 entries",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_refused(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        call()
