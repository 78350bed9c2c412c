"""The derivative of mclip by products, against divided differences in the singular basis that made the matrix."""

import math

import pytest
import torch

from spectrain import matfun
from spectrain.matfun._clipping.change import Interval, clip_basis
from spectrain.matfun._derivative import by_gram
from spectrain.testing import with_singular_values

# torch's own forward mode still scripts its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

INF = math.inf
TOL = {torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-11}


def orthogonal(n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]


def closed_form(U, S, V, D, lower, upper):
    """The change of U clip(S) V^T for square orthogonal U (m) and V (n): entry by entry in the bases, in float64.

    Rows and columns beyond the singular values are those of zeros, where clip is s for lower <= 0.
    """
    m, n = D.shape
    s = torch.zeros(max(m, n), dtype=torch.float64)
    s[: len(S)] = torch.as_tensor(S, dtype=torch.float64)
    f = torch.where(s > 0, s.clamp(max(lower, 0.0), upper), 0.0)
    slope = ((s > lower) & (s < upper) | (s == 0)).double()
    M = torch.zeros(len(s), len(s), dtype=torch.float64)
    M[:m, :n] = U.T @ D @ V
    changed = torch.zeros_like(M)
    for i in range(len(s)):
        for j in range(len(s)):
            apart, total = s[i] - s[j], s[i] + s[j]
            even = (f[i] - f[j]) / apart if apart != 0 else slope[i]
            odd = (f[i] + f[j]) / total if total != 0 else slope[i]
            changed[i, j] = even * (M[i, j] + M[j, i]) / 2 + odd * (M[i, j] - M[j, i]) / 2
    return U @ changed[:m, :n] @ V.T


def off(found, truth):
    return float((found.double() - truth).norm() / truth.norm())


def slope_of(call, X, D):
    X = X.clone().requires_grad_()
    return torch.autograd.grad(call(X), X, D)[0]


SPECTRA = {
    "spread": [9.0, 5.0, 3.0, 1.5, 0.9, 0.3],
    "ties": [4.0, 4.0, 4.0, 1.0, 1.0, 1.0],
    "clusters at a bound": [2.0 + 1e-3, 2.0 + 2e-3, 2.0 - 1e-3, 2.0 - 1e-3, 1.0, 0.5],
    "tiny": [3.0, 2.5, 1.0, 1e-3, 1e-6, 0.0],
    "all above": [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],
}
BOUNDS = {"above": (0, 2.0), "both": (0.7, 2.0), "below": (2.5, INF), "one": (2.0, 2.0)}
CASES = [(s, b, 6, 6) for s in SPECTRA for b in BOUNDS if not (s == "tiny" and b != "above")]
CASES += [(s, "above", m, n) for s in SPECTRA for m, n in ((6, 9), (9, 6))]  # what a rectangle lacks is zero, and jumps


@pytest.mark.parametrize(("spectrum", "bounds", "m", "n"), CASES, ids=str)
def test_the_gradient_is_that_of_the_closed_form(spectrum, bounds, m, n):
    U, V, S = orthogonal(m, 1), orthogonal(n, 2), torch.tensor(SPECTRA[spectrum], dtype=torch.float64)
    X = (U[:, :6] * S) @ V[:, :6].T
    D = torch.randn(m, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lower, upper = BOUNDS[bounds]
    truth = closed_form(U, SPECTRA[spectrum], V, D, lower, upper)
    call = lambda X: matfun.mclip(X, lower, upper)  # noqa: E731
    assert off(slope_of(call, X, D), truth) < TOL[torch.float64]
    near = 100 if "cluster" in spectrum else 1  # float32 rounds X, which moves gaps of 1e-3
    assert off(slope_of(call, X.float(), D.float()), truth) < near * TOL[torch.float32]


WRONG = {
    "the direction itself": lambda U, S, V, D: D,
    "zero for what is clipped": lambda U, S, V, D: U @ (U.T @ D @ V * (S < 2) * (S < 2)[:, None]) @ V.T,
    "the slope of each value alone": lambda U, S, V, D: U @ (U.T @ D @ V * torch.diag((S < 2).double())) @ V.T,
    "the projector on the left": lambda U, S, V, D: D - (U * (S > 2)) @ (U.T @ D),
    "the clip of the direction": lambda U, S, V, D: matfun.mclip(D, 0, 2.0),
    "twice": lambda U, S, V, D: 2 * closed_form(U, S, V, D, 0, 2.0),
    "bounds moved by a hundredth": lambda U, S, V, D: closed_form(U, S, V, D, 0, 2.02),
    "transposed": lambda U, S, V, D: closed_form(U, S, V, D.T, 0, 2.0),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_gradients(wrong):
    U, V, S = orthogonal(6, 1), orthogonal(6, 2), torch.tensor(SPECTRA["spread"], dtype=torch.float64)
    D = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert off(wrong(U, S, V, D), closed_form(U, S, V, D, 0, 2.0)) > 1e-3


CALLS = {
    "mclip": lambda X: matfun.mclip(X, 0, 2.0),
    "mclip both": lambda X: matfun.mclip(X, 0.5, 2.0),
    "mthreshold": lambda X: matfun.mthreshold(X, 2.0),
    "mapply": lambda X: matfun.mapply(torch.tanh, X),
    "msoftclip": lambda X: matfun.msoftclip(X, 2.0),
    "mpsd": matfun.mpsd,
    "mroot": lambda X: matfun.mroot(X, 2, -1),
    "mroot(times=)": lambda X: matfun.mroot(X, 3, times=torch.ones_like(X.detach())),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_derivative_takes_no_decomposition(name, monkeypatch):
    g = torch.Generator().manual_seed(0)
    X = with_singular_values(torch.linspace(0.5, 4.0, 8), 8, 8, generator=g)
    X = (X @ X.mT if "root" in name else X).float().requires_grad_()
    Y = CALLS[name](X)
    for call in ("eigh", "svd", "eigvalsh", "svdvals", "qr", "inv_ex"):
        monkeypatch.delattr(torch.linalg, call)
    assert torch.autograd.grad(Y.square().sum(), X)[0].any()


@pytest.mark.parametrize("name", [name for name in CALLS if "times" not in name])
def test_what_is_kept_gives_what_is_computed_anew(name):
    """Forward mode, vmap and backward agree, and with finite differences."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(3, 6, 6, generator=g, dtype=torch.float64)
    X = X @ X.mT + 0.1 * torch.eye(6) if "root" in name else X
    D = torch.randn(3, 6, 6, generator=g, dtype=torch.float64)
    D = D + D.mT if "root" in name or "psd" in name else D
    call = CALLS[name]
    forward = torch.func.jvp(call, (X,), (D,))[1]
    step = 1e-6
    assert off(forward, (call(X + step * D) - call(X - step * D)) / (2 * step)) < 1e-7
    mapped = torch.vmap(lambda A, B: torch.func.jvp(call, (A,), (B,))[1])(X, D)
    torch.testing.assert_close(mapped, forward, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope_of(call, X, D), forward, rtol=1e-9, atol=1e-11)


def test_on_a_bound_it_is_the_derivative_of_one_side():
    """diag(3, 2, 1) clipped to 2: the entry of the second is 0 (clipped) exactly there; in other bases 0 or 1."""
    on = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    unit = torch.zeros(3, 3, dtype=torch.float64)
    unit[1, 1] = 1.0
    assert not slope_of(lambda X: matfun.mclip(X, 0, 2.0), on, unit).any()
    for seed in range(8):
        U, V = orthogonal(3, seed), orthogonal(3, seed + 100)
        entry = (U.T @ slope_of(lambda X: matfun.mclip(X, 0, 2.0), U @ on @ V.T, U @ unit @ V.T) @ V)[1, 1]
        assert min(abs(float(entry)), abs(float(entry) - 1)) < 1e-9


def test_zero_bounds_and_exact_zeros():
    zero, D = torch.zeros(3, 4, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)
    assert not slope_of(lambda X: matfun.mclip(X, 0, 0), zero, D).any()  # the function is zero everywhere
    assert torch.equal(slope_of(lambda X: matfun.mclip(X, 0, 1), zero, D), D)
    rows = with_singular_values([3.0, 0.2], 2, 4, generator=0)
    padded = torch.cat([rows, torch.zeros(2, 4, dtype=torch.float64)])
    alone = slope_of(lambda X: matfun.mclip(X, 0.5, 2.0), rows, D[:2])
    found = slope_of(lambda X: matfun.mclip(X, 0.5, 2.0), padded, torch.cat([D[:2], 0 * D[:2]]))
    torch.testing.assert_close(found[:2], alone, rtol=1e-9, atol=1e-9)


HARD = [1e7, 1.0001, 0.9999, 0.5]


def hard():
    """Squares of 1e7 leave two digits of what lies next to 1."""
    U, V = orthogonal(4, 5), orthogonal(4, 6)
    D = torch.randn(4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return (U * torch.tensor(HARD, dtype=torch.float64)) @ V.T, D, closed_form(U, HARD, V, D, 0, 1.0)


def test_squares_that_are_too_coarse_are_seen():
    X, D, truth = hard()
    assert off(slope_of(lambda X: matfun.mclip(X, 0, 1.0, tol=1e-5), X, D), truth) < 1e-4


def test_without_a_look_at_the_noise_they_would_be_wrong(monkeypatch):
    X, D, truth = hard()
    monkeypatch.setattr(by_gram, "_noise", lambda X, G, L, U: torch.zeros(len(X), dtype=torch.float64))
    assert off(slope_of(lambda X: matfun.mclip(X, 0, 1.0, tol=1e-5), X, D), truth) > 1e-3


def test_wrong_eigenvectors_are_seen(monkeypatch):
    """Off by one part in ten thousand in one rotation: the residual says so and the SVD takes over."""
    X = with_singular_values(torch.linspace(0.5, 4.0, 8), 8, 8, generator=0)[None]
    true, eigh = clip_basis(X, Interval(0.0, 2.0, 0.0)), torch.linalg.eigh

    def turned(G):
        L, V = eigh(G)
        c, s = math.cos(1e-4), math.sin(1e-4)
        R = torch.eye(8, dtype=V.dtype)
        R[:2, :2] = torch.tensor([[c, -s], [s, c]])
        return L, V @ R

    monkeypatch.setattr(torch.linalg, "eigh", turned)
    again = clip_basis(X, Interval(0.0, 2.0, 0.0))
    torch.testing.assert_close(again.S, true.S, rtol=1e-12, atol=0)
    torch.testing.assert_close((true.U.mT @ again.U).abs(), torch.eye(8).double()[None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spectrum", ["even", "few above", "graded", "far above"])
def test_the_bound_on_rounding_holds_and_what_exceeds_it_runs_in_float64(spectrum):
    S = {
        "even": torch.linspace(0.1, 4.0, 48),
        "few above": torch.cat([torch.linspace(2.1, 40.0, 6), torch.linspace(0.0, 1.9, 42)]),
        "graded": torch.logspace(-5, 1, 48),
        "far above": torch.linspace(2e5, 4e5, 48),
    }[spectrum].double()
    X = with_singular_values(S, 48, 64, generator=1)[None]
    D = torch.randn(1, 48, 64, generator=torch.Generator().manual_seed(2))
    interval, exponent = Interval(0.0, 2.0, 0.0), torch.zeros(1, dtype=torch.int32)
    basis = clip_basis(X, interval)
    of = by_gram._Turned(basis.U, basis.U.mT @ X, basis.S, *interval.quotients(basis.S, exponent))
    narrow, bound = of.change(D)
    truth = of.change(D.double())[0]
    assert 0 < off(narrow, truth) <= float(bound)
    assert float(bound) < 1e-3 or spectrum == "far above"
    found = by_gram.change_by_basis(X, D, basis.packed(), f=interval)
    assert off(found, truth) <= 1e-4
    assert (found.dtype == torch.float64) == (float(bound) > 1e-4)


def test_half_precision_and_large_matrices_and_sizes(full):
    k = 300 if full else 40
    X = torch.randn(k, k + 8, generator=torch.Generator().manual_seed(0))
    D = torch.randn(k, k + 8, generator=torch.Generator().manual_seed(1))
    call = lambda X, c=k**0.5: matfun.mclip(X, 0, c)  # noqa: E731
    truth = slope_of(call, X.double(), D.double())
    assert off(slope_of(call, X, D), truth) < 1e-4
    half = X.bfloat16()
    assert off(slope_of(call, half, D.bfloat16()), slope_of(call, half.double(), D.bfloat16().double())) < 2e-2
    for size in (1e-30, 1e30):
        scaled = slope_of(lambda X, s=size: matfun.mclip(X, 0, s * k**0.5), size * X, D)
        assert off(scaled, truth) < 1e-4
