"""What stands in for torch's operations one by one: values and gradients beside definitions in float64."""

import pytest
import torch
import torch.nn.functional as F

from spectrain.nn._attention import short, turned
from spectrain.nn._attention.rotary import Rotary
from spectrain.nn._attention.short import attend_short, is_short
from spectrain.nn._attention.turned import normalise_and_turn
from spectrain.nn._autocast import narrowed
from spectrain.nn._eager import by_formula
from spectrain.nn._rms_norm import RMSNorm


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def definition(x, weight, eps):
    """RMSNorm as it is written in papers."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotation(x, base=10_000.0):
    """Pairs half a head apart as complex numbers, turned by their positions."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angle = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    out = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((out.real, out.imag), dim=-1)


def attention(q, k, v, scale):
    """The definition of causal attention in float64, keys repeated."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    return (q @ k.mT * scale).masked_fill(later, -torch.inf).softmax(-1) @ v


def off(found, true):
    return float((found.detach().double() - true.detach()).norm() / true.detach().norm())


@pytest.mark.parametrize("eps", [None, 1e-6, 0.3])
def test_rms_norm_is_its_definition_to_the_second_derivative(eps):
    norm = RMSNorm(6, eps=eps).double()
    x = normal(2, 3, 6).requires_grad_()
    weight = (1 + normal(6, seed=1) / 3).requires_grad_()
    norm.weight = torch.nn.Parameter(weight.detach().clone())
    true = definition(x, weight, torch.finfo(torch.float64).eps if eps is None else eps)
    torch.testing.assert_close(norm(x), true, rtol=1e-14, atol=0)
    found = torch.autograd.grad(norm(x).sin().sum(), (x, norm.weight))
    wanted = torch.autograd.grad(true.sin().sum(), (x, weight))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    call = lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,))  # noqa: E731
    assert torch.autograd.gradgradcheck(call, (x, weight), fast_mode=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, when forward mode is first used
def test_rms_norm_takes_its_formula_where_it_may_and_torch_s_elsewhere():
    norm, x = RMSNorm(4), normal(3, 4, dtype=torch.float32).requires_grad_()
    assert "_Normalise" in type(norm(x).grad_fn).__name__
    each = torch.func.vmap(torch.func.grad(lambda x: norm(x).square().sum()))(x.detach())
    torch.testing.assert_close(each, torch.autograd.grad(norm(x).square().sum(), x)[0])
    out, tangent = torch.func.jvp(norm, (x.detach(),), (torch.ones(3, 4),))
    plain = lambda x: definition(x, norm.weight, torch.finfo(torch.float32).eps)  # noqa: E731
    _, wanted = torch.func.jvp(plain, (x.detach(),), (torch.ones(3, 4),))
    torch.testing.assert_close((out, tangent), (norm(x), wanted))
    assert not by_formula(x.to("meta"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_heads_are_divided_by_their_rms_and_turned(dtype):
    u = max(torch.finfo(dtype).eps, 1e-14)  # angles of a few radians, rounded otherwise
    x = normal(2, 7, 3, 8, dtype=dtype).transpose(1, 2).requires_grad_()
    wide = x.detach().double().requires_grad_()
    turns = Rotary(8).turns(0, 7, device=torch.device("cpu"))
    out, g = normalise_and_turn(x, turns, eps=1e-6), normal(2, 3, 7, 8, seed=1, dtype=dtype)
    true = rotation(definition(wide, 1.0, 1e-6))
    assert out.dtype == dtype
    assert off(out, true) < 2 * u
    (found,), (wanted,) = torch.autograd.grad(out, x, g), torch.autograd.grad(true, wide, g.double())
    assert off(found, wanted) < 4 * u
    for wrong in (rotation(definition(-wide, 1.0, 1e-6)), definition(wide, 1.0, 1e-6), rotation(wide)):
        assert off(out, wrong) > 0.02
    by_operations = torch.func.vmap(lambda x: normalise_and_turn(x, turns, eps=1e-6))(x.detach())
    assert off(by_operations, true) < 2 * u


def test_heads_have_a_second_derivative():
    turns = Rotary(4).turns(2, 3, device=torch.device("cpu"))
    call = lambda x: normalise_and_turn(x, turns, eps=1e-6)  # noqa: E731
    x = normal(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(call, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, x, fast_mode=True)


def test_narrow_heads_are_divided_as_torch_divides_them():
    """Without an eps torch adds float32's rounding, also to what is narrower: bfloat16's own would be seen here."""
    x = torch.full((1, 1, 1, 8), 0.01, dtype=torch.bfloat16)
    turns = Rotary(8).turns(0, 1, device=torch.device("cpu"))
    assert off(normalise_and_turn(x, turns, eps=None), F.rms_norm(x.double(), (8,), eps=2.0**-23)) < 0.004


@pytest.mark.parametrize(
    ("heads", "groups", "length", "dim"), [(4, 2, 33, 16), (6, 6, 8, 32), (5, 1, 1, 8), (3, 3, 0, 4)]
)
def test_short_attention_and_its_gradient_are_those_of_the_definition(heads, groups, length, dim):
    def unit(count, seed):
        return F.rms_norm(normal(3, length, count, dim, seed=seed).transpose(1, 2), (dim,)).bfloat16().requires_grad_()

    q, k, v, g = unit(heads, 0), unit(groups, 1), unit(groups, 2), unit(heads, 3).detach()
    scale = dim**-0.5
    assert is_short(q, k, v, most=scale * dim)
    out = attend_short(q, k, v, scale=scale)
    found = torch.autograd.grad(out, (q, k, v), g)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    true = attention(*wide, scale)
    wanted = torch.autograd.grad(true, wide, g.double())
    assert [x.shape for x in found] == [x.shape for x in (q, k, v)]
    if length > 1:
        assert off(out, true.detach()) < 0.01
        assert max(off(a, b) for a, b in zip(found, wanted, strict=True)) < 0.02
        for wrong in (scale / 2, -scale):
            others = torch.autograd.grad(attention(*wide, wrong), wide, g.double())
            assert min(off(a, b) for a, b in zip(found[:2], others[:2], strict=True)) > 0.1


def test_what_is_not_short_goes_to_torch():
    q = normal(1, 2, short.LONGEST + 1, 4, dtype=torch.bfloat16).requires_grad_()
    part = q[:, :, :8]
    assert is_short(part, part, part, most=8.0)
    assert not is_short(q, q, q, most=8.0)
    assert not is_short(part, part, part, most=float("inf"))
    assert not is_short(part.float(), part.float(), part.float(), most=8.0)
    assert not is_short(part.detach(), part, part, most=8.0)


def test_under_autocast_several_maps_share_one_rounding():
    x = normal(5, 4, dtype=torch.float32)
    assert narrowed(x) is x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(narrowed(x), x.bfloat16())
        assert narrowed(x.double()).dtype == torch.float64


@pytest.mark.parametrize("length", [1, 4])
def test_a_rotation_is_that_of_complex_numbers_and_its_reverse_cancels_it(length):
    rotary = Rotary(6)
    turns = rotary.turns(3, length, device=torch.device("cpu"))
    x = normal(2, length, 6)
    angle = (3 + torch.arange(length, dtype=torch.float64))[:, None] * rotary.frequencies(x.device)
    by = torch.view_as_real(torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle))
    true = torch.cat(by.unbind(-1), -1)
    factors = turns.factors(x.dtype)
    with torch.no_grad():
        kept, alone = rotary.turn(x, turns), rotary.turn(x.clone(), turns, fresh=True)
    for there in (turned._rotate(x, *factors, back=False), rotary.turn(x, turns), kept, alone):
        torch.testing.assert_close(there, true, rtol=1e-14, atol=1e-14)
        assert float((there - turned._rotate(x, *factors, back=True)).abs().max()) > 0.1
        with torch.no_grad():
            again = rotary.turn(there, turns, back=True)
        for back in (turned._rotate(there, *factors, back=True), rotary.turn(there, turns, back=True), again):
            torch.testing.assert_close(back, x, rtol=1e-14, atol=1e-14)
