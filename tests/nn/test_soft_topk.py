"""Smooth top-k: its sum, its limit, its order, its derivatives; brute force over subsets; what must be refused."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from spectrain import nn

THRESHOLD = ["laplace", "exp", "sigmoid"]
KINDS = [*THRESHOLD, "gradient", "iterative"]
TEMPERATURES = [1e-12, 1e-6, 1e-2, 1.0, 1e3, 1e6]


forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch 2.13 warns of itself


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hard(x, k):
    return torch.zeros_like(x).scatter(-1, x.topk(k, dim=-1).indices, 1)


F = {
    "laplace": lambda u: torch.where(u < 0, u.exp() / 2, 1 - (-u).exp() / 2),
    "exp": lambda u: u.exp().clamp(max=1),
    "sigmoid": torch.sigmoid,
}


def by_bisection(f, z, k):
    """The definition of the threshold kinds: bisection for t with sum f(z - t) = k."""
    low, high = z.min() - 60, z.max() + 60
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if f(z - middle).sum() > k else (low, middle)
    return f(z - low)


def by_subsets(z, k):
    """The definition of the gradient kind: the share of all subsets of k that hold each entry."""
    subsets = torch.tensor(list(itertools.combinations(range(len(z)), k)))
    shares = z[subsets].sum(-1).softmax(0)
    return torch.zeros_like(z).scatter_add(0, subsets.flatten(), shares.repeat_interleave(k))


@pytest.mark.parametrize("kind", THRESHOLD)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 50.0])
def test_the_threshold_kinds_are_their_definition(kind, temperature):
    x = normal(30)
    for k in (0.01, 1, 7.5, 15, 29, 29.99):
        truth = by_bisection(F[kind], x / temperature, k)
        torch.testing.assert_close(
            nn.soft_topk(x, k, temperature=temperature, kind=kind), truth, rtol=1e-11, atol=1e-14
        )


WRONG = {
    "not the threshold": lambda f, z, k: f(z - z.topk(k).values[-1]),
    "scaled to the sum": lambda f, z, k: k * z.softmax(0),
    "one too many": lambda f, z, k: by_bisection(f, z, k + 1),
    "hard": lambda f, z, k: hard(z, k),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", THRESHOLD)
def test_the_definition_rejects_wrong_answers(kind, wrong):
    x = normal(30)
    assert (wrong(F[kind], x, 7) - by_bisection(F[kind], x, 7)).abs().max() > 1e-2


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 100.0])
def test_the_gradient_kind_is_the_sum_over_subsets(temperature):
    for n, k in [(2, 1), (5, 2), (9, 4), (9, 8), (12, 6)]:
        x = normal(n, seed=n)
        got = nn.soft_topk(x, k, temperature=temperature, kind="gradient")
        torch.testing.assert_close(got, by_subsets(x / temperature, k), rtol=1e-12, atol=1e-15)


def test_the_recursion_of_the_article_fails_where_the_tree_does_not():
    """The article's grad_topk cancels in log(Z - Z_i), and loses an entry of weight 1."""
    x, k = normal(40), 20
    z = x / 0.05
    terms, total = z, z.logsumexp(0)
    for i in range(2, k + 1):
        terms = z + (total.exp() - terms.exp()).clamp(min=1e-12).log()
        total = terms.logsumexp(0) - torch.tensor(float(i)).log()
    p = nn.soft_topk(x, k, temperature=0.05, kind="gradient")
    assert ((terms - total).exp() - p).abs().max() > 0.9
    assert abs(p.sum() - k) < 1e-12 * k


@pytest.mark.parametrize("kind", THRESHOLD)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("n", [2, 3, 20, 1000])
def test_the_sum_is_k_for_every_temperature(kind, temperature, n):
    for x in (normal(3, n), normal(3, n).round(), torch.zeros(1, n, dtype=torch.float64)):
        for k in (1e-3, 1, n / 3, n // 2, n - 1, n - 1e-3):
            p = nn.soft_topk(x, k, temperature=temperature, kind=kind)
            assert ((p.sum(-1) - k).abs() <= 1e-12 * k).all()
            assert p.min() >= 0
            assert p.max() <= 1
            assert (p.gather(-1, x.argsort(-1)).diff() >= -1e-15).all()


@pytest.mark.parametrize("kind", THRESHOLD)
def test_the_sum_is_k_for_a_million_scores(kind):
    x = normal(10**6)
    for temperature, k in [(1e-12, 1000), (1.0, 1e5), (1e6, 0.5)]:
        assert abs(nn.soft_topk(x, k, temperature=temperature, kind=kind).sum() - k) <= 1e-12 * k


@pytest.mark.parametrize(("n", "k"), [(10_000, 100), (2_000, 1_999), (3_000, 1_500)])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_kind_keeps_its_sum_where_products_go_by_fft(n, k, temperature):
    x = normal(n)
    p = nn.soft_topk(x, k, temperature=temperature, kind="gradient")
    assert abs(p.sum() - k) <= 1e-12 * k
    assert (p[x.argsort()].diff() >= -1e-12).all()
    short = nn.soft_topk(x[:60], 33, temperature=temperature, kind="gradient")  # one product just above the switch
    assert abs(short.sum() - 33) <= 1e-12 * 33


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_temperature_zero_is_topk(kind):
    x = normal(3, 50)
    for k in (1, 7, 25, 49):
        p = nn.soft_topk(x, k, temperature=1e-9, kind=kind)
        torch.testing.assert_close(p, hard(x, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["exp", "gradient", "iterative"])
def test_at_one_it_is_softmax(kind):
    for x in (normal(4, 9), 10 * normal(4, 9)):
        torch.testing.assert_close(nn.soft_topk(x, 1, kind=kind), x.softmax(-1), rtol=1e-12, atol=1e-15)


def test_the_laplace_kind_at_one_is_softmax_only_up_to_one_half():
    """Article 10373 says that it always is; (3, 0) is a counterexample."""
    flat, steep = normal(20), torch.tensor([3.0, 0.0], dtype=torch.float64)
    assert flat.softmax(0).max() < 0.5 < steep.softmax(0).max()
    torch.testing.assert_close(nn.soft_topk(flat, 1), flat.softmax(0), rtol=1e-13, atol=0)
    assert (nn.soft_topk(steep, 1) - steep.softmax(0)).abs().max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_changes_nothing_and_ties_are_equal(kind):
    x = normal(6, 10).round()
    p = nn.soft_topk(x, 4, kind=kind)
    torch.testing.assert_close(nn.soft_topk(x + 1024, 4, kind=kind), p, rtol=1e-12, atol=1e-14)
    for row, scores in zip(p, x, strict=True):
        for value in scores.unique():
            tied = row[scores == value]
            assert (tied - tied[0]).abs().max() < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_infinite_scores_are_decided_and_the_rest_is_as_without_them(kind):
    x = normal(2, 8)
    wide = torch.cat((x, torch.full((2, 3), -torch.inf), torch.full((2, 1), torch.inf)), dim=-1)
    p = nn.soft_topk(wide, 4, temperature=0.7, kind=kind)
    torch.testing.assert_close(p[:, :8], nn.soft_topk(x, 3, temperature=0.7, kind=kind), rtol=1e-12, atol=1e-14)
    assert (p[:, 8:11] == 0).all()
    assert (p[:, 11] - 1).abs().max() < 1e-15
    wide.requires_grad_()
    nn.soft_topk(wide, 4, temperature=0.7, kind=kind).square().sum().backward()
    assert wide.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_spoils_its_row_only(kind):
    x = normal(3, 6)
    x[1, 2] = torch.nan
    p = nn.soft_topk(x, 2, kind=kind)
    assert p[1].isnan().all()
    torch.testing.assert_close(p[::2], nn.soft_topk(x[::2], 2, kind=kind))


@forward_mode
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_first_and_second_derivatives_in_scores_k_and_temperature(kind, temperature):
    real = kind in THRESHOLD
    for k in (1, 2.5, 4) if real else (1, 2, 4):
        x, heat = normal(2, 5).requires_grad_(), torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
        if real:
            count = torch.tensor(float(k), dtype=torch.float64, requires_grad=True)
            call, inputs = lambda x, t, k: nn.soft_topk(x, k, temperature=t, kind=kind), (x, heat, count)
        else:
            call, inputs = lambda x, t, k=k: nn.soft_topk(x, k, temperature=t, kind=kind), (x, heat)
        assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("kind", THRESHOLD)
def test_the_derivative_is_right_where_a_score_lies_on_the_threshold(kind):
    """Two equal scores and k = 1: the threshold is the score, and |u| has no derivative there."""
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    J = torch.autograd.functional.jacobian(lambda x: nn.soft_topk(x, 1, kind=kind), x)
    slope = 0.25 if kind != "sigmoid" else 0.125
    torch.testing.assert_close(J, slope * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


@forward_mode
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_of_torch_func(kind):
    x = normal(3, 6)

    def call(x):
        return nn.soft_topk(x, 2, temperature=0.7, kind=kind)

    torch.testing.assert_close(torch.func.vmap(call)(x), call(x), rtol=1e-13, atol=1e-14)
    backward, forward = (torch.func.vmap(J(call))(x) for J in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(forward, backward)
    hessian = torch.func.hessian(lambda x: call(x).square().sum())(x[0])
    twice = torch.func.jacrev(torch.func.jacrev(lambda x: call(x).square().sum()))(x[0])
    torch.testing.assert_close(hessian, twice)


@pytest.mark.parametrize("kind", THRESHOLD)
def test_one_k_and_temperature_a_row_in_any_dimension(kind):
    x = normal(4, 9, 2)
    k, heat = torch.tensor([[1.0, 2.5], [3, 4], [5, 6], [7, 8.5]]), torch.tensor([0.5, 2.0])
    p = nn.soft_topk(x, k, temperature=heat, kind=kind, dim=1)
    for i, j in itertools.product(range(4), range(2)):
        alone = nn.soft_topk(x[i, :, j], k[i, j].item(), temperature=heat[j].item(), kind=kind)
        torch.testing.assert_close(p[i, :, j], alone, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_dtypes_are_the_wide_answer_rounded(dtype, kind):
    x = normal(2, 40).to(dtype)
    p = nn.soft_topk(x, 5, kind=kind)
    assert p.dtype == dtype
    assert torch.equal(p, nn.soft_topk(x.double(), 5, kind=kind).to(dtype))


x3 = torch.zeros(3)
BAD = {
    "k = 0": (lambda: nn.soft_topk(x3, 0), ValueError, "between 0 and 3"),
    "k = n": (lambda: nn.soft_topk(x3, 3, kind="gradient"), ValueError, "between 0 and 3"),
    "k > n in one row": (lambda: nn.soft_topk(torch.zeros(2, 3), torch.tensor([1.0, 5.0])), ValueError, "got 5"),
    "k > visible": (lambda: nn.soft_topk(torch.tensor([1.0, 2.0, -torch.inf]), 2), ValueError, "between 0 and 2"),
    "fractional subset": (lambda: nn.soft_topk(x3, 1.5, kind="gradient"), TypeError, "whole number"),
    "too large": (lambda: nn.soft_topk(torch.zeros(20_000), 10_000, kind="iterative"), ValueError, "1e8"),
    "temperature 0": (lambda: nn.soft_topk(x3, 1, temperature=0.0), ValueError, "temperature must be positive"),
    "temperature NaN": (lambda: nn.soft_topk(x3, 1, temperature=float("nan")), ValueError, "temperature"),
    "integers": (lambda: nn.soft_topk(torch.zeros(3, dtype=torch.long), 1), TypeError, "floating"),
    "a number": (lambda: nn.soft_topk(torch.tensor(1.0), 1), ValueError, "single number"),
    "no scores": (lambda: nn.soft_topk(torch.zeros(2, 0), 1), ValueError, "nothing to choose from"),
    "k of a wrong shape": (lambda: nn.soft_topk(torch.zeros(2, 3), torch.ones(3)), ValueError, "broadcast"),
}


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD)
def test_impossible_requests_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_unknown_kind_is_refused():
    with pytest.raises((ValueError, TypeError)):
        nn.soft_topk(x3, 1, kind="hard")


def test_under_vmap_an_impossible_row_is_nan():
    p = torch.func.vmap(lambda x, k: nn.soft_topk(x, k))(normal(2, 4), torch.tensor([2.0, 9.0]))
    assert abs(p[0].sum() - 2) < 1e-12
    assert p[1].isnan().all()


PROGRAM = """
import sys
import torch
from spectrain import nn

x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
for kind in ("laplace", "exp", "sigmoid", "gradient", "iterative"):
    call = lambda x: nn.soft_topk(x, 3, temperature=0.7, kind=kind)
    torch.compiler.reset()
    compiled = torch.compile(call, backend=sys.argv[1], fullgraph=True)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(compiled(a), call(b), rtol=1e-12, atol=1e-14)
    compiled(a).square().sum().backward(), call(b).square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    print(kind)
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("eager", marks=pytest.mark.full)])
def test_one_graph_equal_to_eager(backend):
    """In a process of its own: the checks of shape annotations that pytest adds cannot be traced."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["laplace", "exp", "sigmoid", "gradient", "iterative"]


def by_recursion(x, k, temperature):
    """The definition of the iterative kind, in exact fractions but for exp, whose argument is cut at -1000."""
    x, p = [Fraction(v) for v in x], [Fraction(0)] * len(x)
    for _ in range(k):
        pulled = [(1 - q) * (v - min(x)) / Fraction(temperature) for q, v in zip(p, x, strict=True)]
        shares = [math.exp(float(max(v - max(pulled), Fraction(-1000)))) for v in pulled]
        p = [q + Fraction(s / sum(shares)) for q, s in zip(p, shares, strict=True)]
    return torch.tensor([float(q) for q in p], dtype=torch.float64)


WIDE = {
    "beyond the largest": [1e308, -1e308, 0.0, 5e307],
    "three of them": [1.5e308, 1.2e308, 7e307, -1.7e308],
    "beyond the temperature": [1e305, 9e304, 0.0, -3.0],
    "plain": [3.0, 1.0, -2.0, 0.5],
}


@pytest.mark.parametrize("temperature", [1e-12, 0.5, 1e6, 1e300, 1e307])
@pytest.mark.parametrize("x", WIDE.values(), ids=WIDE)
def test_the_iterative_kind_is_its_definition_also_where_scores_spread_beyond_float64(x, temperature):
    x, heat = torch.tensor(x, dtype=torch.float64, requires_grad=True), torch.tensor(temperature, dtype=torch.float64)
    p = nn.soft_topk(x, 2, temperature=heat.requires_grad_(), kind="iterative")
    torch.testing.assert_close(p.detach(), by_recursion(x.tolist(), 2, temperature), rtol=1e-9, atol=1e-12)
    for slope in torch.autograd.grad((p * torch.arange(4)).sum(), (x, heat)):
        assert slope.isfinite().all()
