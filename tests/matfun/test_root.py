"""mroot against closed forms and mpmath-free identities: powers of what it returns give back P."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck

from spectrain import matfun
from spectrain.testing import random_orthonormal, relative_error

# torch's own forward mode still scripts its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

POWERS = [(r, s) for r in range(1, 9) for s in (-3, -1, 1, 2)]


def definite(n, decades, seed=0):
    """A matrix with eigenvalues 10^-decades ... 1, its eigenvectors and eigenvalues."""
    V = random_orthonormal(n, n, generator=seed)
    L = torch.logspace(-decades, 0, n, dtype=torch.float64)
    return (V * L) @ V.mT, V, L


@pytest.mark.parametrize(("r", "s"), POWERS)
def test_every_power_in_every_dtype(r, s):
    """A known library is 18 % wrong for r = 3, 5, 6 and 7 and does not notice."""
    P, V, L = definite(12, 3)
    truth = (V * L ** (s / r)) @ V.mT
    assert relative_error(matfun.mroot(P, r, s), truth) <= 1e-10
    assert relative_error(matfun.mroot(P.float(), r, s), _exact(P.float(), s / r)) <= 1e-4
    Q, _, _ = definite(12, 0.5)
    assert relative_error(matfun.mroot(Q.bfloat16(), r, s), _exact(Q.bfloat16(), s / r)) <= 5e-2


def _exact(P, power):
    P = P.double()
    L, V = torch.linalg.eigh((P + P.mT) / 2)
    return (V * L**power) @ V.mT


def test_the_power_of_the_root_is_the_matrix():
    P, _, _ = definite(10, 2)
    for r in range(2, 8):
        assert relative_error(torch.linalg.matrix_power(matfun.mroot(P, r), r), P) < 1e-13
        residual = torch.linalg.matrix_power(matfun.mroot(P, r, -1), r) @ P - torch.eye(10, dtype=P.dtype)
        assert residual.abs().max() < 1e-11


WRONG_ROOT = {
    "transposed power": lambda P, r: matfun.mroot(P, r, -1),
    "entries": lambda P, r: P.abs() ** (1 / r),
    "one root further": lambda P, r: matfun.mroot(P, r + 1),
    "0.99 of the truth": lambda P, r: 0.99 * matfun.mroot(P, r),
    "coupled Newton without its check": lambda P, r: torch.eye(len(P), dtype=P.dtype) + (P - torch.eye(len(P))) / r,
}


@pytest.mark.parametrize("name", WRONG_ROOT)
def test_the_identity_rejects_wrong_roots(name):
    P, _, _ = definite(10, 2)
    assert relative_error(torch.linalg.matrix_power(WRONG_ROOT[name](P, 3), 3), P) > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
def test_products_with_a_power(side):
    P, V, L = definite(9, 4)
    G = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inverse = (V * L**-0.5) @ V.mT
    found = matfun.mroot(P, 2, -1, times=G if side == "right" else G.mT, side=side)
    assert relative_error(found if side == "right" else found.mT, G @ inverse) < 1e-12


def test_two_sided_whitening():
    P, V, L = definite(7, 2, seed=1)
    Q, W, M = definite(5, 2, seed=2)
    G = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = (W * M**-0.5) @ W.mT @ G @ (V * L**-0.5) @ V.mT
    assert relative_error(matfun.mroot(Q, 2, -1, times=matfun.mroot(P, 2, -1, times=G), side="left"), truth) < 1e-12


def test_scale_batch_zero_and_rank():
    P, _, _ = definite(6, 2)
    batch = torch.stack([P, 2.0**400 * P, 2.0**-400 * P])
    roots = matfun.mroot(batch, 2)
    assert relative_error(roots[1] * 2.0**-200, roots[0]) == 0
    assert relative_error(roots[2] * 2.0**200, roots[0]) == 0
    assert not matfun.mroot(torch.zeros(3, 3), 2, -1).any()
    v = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    torch.testing.assert_close(matfun.mroot(v @ v.mT, 2, -1), v @ v.mT / 125, rtol=0, atol=1e-14)
    assert matfun.mroot(torch.zeros(0, 0), 3).shape == (0, 0)


def test_bad_requests():
    P = torch.eye(3)
    with pytest.raises(ValueError, match="square"):
        matfun.mroot(torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match="positive semidefinite"):
        matfun.mroot(torch.diag(torch.tensor([1.0, -0.5])), 2)
    with pytest.raises(ValueError, match="at least 1"):
        matfun.mroot(P, 0)
    with pytest.raises(ValueError, match="side"):
        matfun.mroot(P, 2, times=P, side="both")
    with pytest.raises(ValueError, match="does not fit"):
        matfun.mroot(P, 2, times=torch.ones(3, 4))
    with pytest.raises(ValueError, match="NaN"):
        matfun.mroot(P * float("nan"), 2)
    bad, _, _ = definite(8, 13)
    with pytest.raises(ValueError, match="cannot prove"):
        matfun.mroot(bad, 2, -1, tol=1e-9)


@pytest.mark.parametrize(("r", "s"), [(1, -1), (2, 1), (2, -1), (3, -1), (4, -3), (5, 2), (7, -1), (2, 3)])
def test_the_coupled_iteration(r, s):
    """Products only: eigenvalues over three decades, within the error of the schedule and float64 rounding."""
    P, V, L = definite(12, 3)
    truth = (V * L ** (s / r)) @ V.mT
    assert relative_error(matfun.mroot(64.0 * P, r, s, steps=12) / 64.0 ** (s / r), truth) <= 1e-8
    assert relative_error(matfun.mroot(P.float(), r, s, steps=12), truth) <= 2e-2
    assert relative_error(matfun.mroot(P, r, s, steps=1), truth) > 1e-2
    G = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert relative_error(matfun.mroot(P, r, s, times=G, steps=12), G @ truth) <= 1e-7


def hermitian(n, decades, seed=0):
    g = torch.Generator().manual_seed(seed)
    V = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.complex128))[0]
    L = torch.logspace(-decades, 0, n, dtype=torch.float64)
    return (V * L) @ V.mH, V, L


@pytest.mark.parametrize("options", [{}, {"steps": 12}], ids=str)
def test_complex_hermitian_matrices(options):
    P, V, L = hermitian(8, 2)
    truth = (V * L ** (-2 / 3)) @ V.mH
    found = matfun.mroot(P, 3, -2, **options)
    assert found.dtype == torch.complex128
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-8)
    assert (found - truth.mT).abs().max() > 1  # the answer that forgets the conjugate
    G = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.complex128)
    torch.testing.assert_close(matfun.mroot(P, 3, -2, times=G, **options), G @ truth, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("r", "s"), [(1, 2), (2, 1), (2, -1), (3, -2), (5, 3)])
def test_derivatives(r, s):
    """Also where all eigenvalues are equal, which the derivative of the eigenvectors does not survive."""
    A = torch.randn(4, 4, generator=torch.Generator().manual_seed(r), dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    for P in (A @ A.mT + eye, 2 * eye):
        X = P.clone().requires_grad_()
        assert gradcheck(lambda X: matfun.mroot((X + X.mT) / 2, r, s), X, check_forward_ad=True, fast_mode=True)
        assert gradcheck(lambda X: matfun.mroot((X + X.mT) / 2, r, s, steps=20), X, atol=1e-4, fast_mode=True)
    G = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda X, G: matfun.mroot((X + X.mT) / 2, r, s, times=G), (X, G), fast_mode=True)


def test_the_derivative_at_rank_deficiency_and_the_second_one():
    v = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    P = (v @ v.mT).requires_grad_()
    (slope,) = torch.autograd.grad(matfun.mroot(P, 2)[0, 0], P)
    assert slope.isfinite().all()
    assert float((slope * (v @ v.mT)).sum()) == pytest.approx(0.5 * 9 / 5, rel=1e-9)  # Euler: degree 1/2
    Q = torch.eye(2, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(matfun.mroot(Q, 2).sum(), Q, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        slope.sum().backward()


def test_what_is_not_symmetric_is_refused():
    """scipy.linalg.sqrtm returns inf for the first with a warning; the second would silently be another matrix."""
    for bad in ([[0.0, 1.0], [0.0, 0.0]], [[2.0, 1.0], [0.5, 2.0]]):
        with pytest.raises(ValueError, match="not symmetric"):
            matfun.mroot(torch.tensor(bad), 2)
    P, _, _ = definite(6, 1)
    almost = (P + 1e-15 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).contiguous()
    assert relative_error(matfun.mroot(almost, 2), matfun.mroot(P, 2)) < 1e-13
    with pytest.raises(ValueError, match="steps"):
        matfun.mroot(P, 2, steps=3, tol=1e-3)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
@pytest.mark.parametrize("r", [2, 24, 48, 100, 200])
def test_high_roots_by_steps(r, dtype, digits):
    """The identity times 4 gave NaN for r = 100; 200 decimal digits say 1.01396."""
    with mpmath.workdps(200):
        truth = {s: float(mpmath.root(4, r) ** s) for s in (1, -1)}
    for s in (1, -1):
        for steps in (12, 30, 60):
            found = matfun.mroot(4 * torch.eye(3, dtype=dtype), r, s, steps=steps)
            torch.testing.assert_close(found, truth[s] * torch.eye(3, dtype=dtype), rtol=digits, atol=digits)
    assert r != 100 or f"{truth[1]:.6g}" == "1.01396"


def of_values(values, dtype=torch.float64, seed=0):
    V = random_orthonormal(len(values), len(values), generator=seed)
    P = (V * torch.tensor(values, dtype=torch.float64)) @ V.mT
    return ((P + P.mT) / 2).to(dtype)


NOT_DEFINITE = {
    "zero": [0.0, 0.0, 0.0],
    "singular": [0.0, 0.5, 1.0, 1.0],
    "rank one": [0.0, 0.0, 0.0, 3.0],
    "indefinite": [-0.3, 0.1, 0.5, 1.0],
    "slightly indefinite": [-1e-5, 0.1, 0.5, 1.0],
    "negative": [-1.0, -2.0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NOT_DEFINITE)
@pytest.mark.parametrize("r", [1, 2, 5, 100])
def test_steps_refuse_inverse_roots_of_what_has_none(name, dtype, r):
    """Where the truth is infinite or does not exist: NaN, infinities and numbers up to 1e85 came back."""
    P = of_values(NOT_DEFINITE[name], dtype)
    for steps in (1, 4, 12, 60):
        with pytest.raises(ValueError, match=rf"mroot: P is not positive definite to rounding, .* steps={steps}"):
            matfun.mroot(P, r, -1, steps=steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [4, 8, 12, 20, 60])
def test_steps_take_square_roots_of_semidefinite_matrices_or_refuse(dtype, steps):
    """Rounding leaves zero eigenvalues at +-u; what runs away from there is told, before it shows."""
    P = of_values([0.0, 0.0, 0.3, 0.6, 1.0, 2.0], dtype)
    truth = of_values([0.0, 0.0, 0.3**0.5, 0.6**0.5, 1.0, 2.0**0.5])
    try:
        found = matfun.mroot(P, 2, steps=steps)
    except ValueError:
        assert steps > 8
    else:
        assert relative_error(found, truth) <= (2e-2 if steps == 4 else 1e-3)
    for name in ("indefinite", "negative"):
        with pytest.raises(ValueError, match="not positive definite"):
            matfun.mroot(of_values(NOT_DEFINITE[name], dtype), 2, steps=steps)


def test_steps_name_the_matrix_of_a_batch():
    batch = torch.stack([of_values([0.1, 1.0]), of_values([-0.1, 1.0]), of_values([0.2, 1.0]), of_values([0.0, 1.0])])
    with pytest.raises(ValueError, match=r"2 of 4 matrices, the first at index 1\): add a multiple of the identity"):
        matfun.mroot(batch, 3, -1, steps=10)
    with pytest.raises(ValueError, match="2 of 4 matrices"):
        torch.vmap(lambda P: matfun.mroot(P, 3, -1, steps=10))(batch)
    for extreme in (2.0**-500, 2.0**500):
        with pytest.raises(ValueError, match="2 of 4 matrices"):
            matfun.mroot(extreme * batch, 3, -1, steps=10)
    with pytest.raises(ValueError, match="not symmetric"):
        matfun.mroot(torch.tensor([[2.0, 1.0], [0.5, 2.0]]), 2, steps=3)
    with pytest.raises(ValueError, match="from 1 to 60"):
        matfun.mroot(torch.eye(2), 2, steps=61)
    assert matfun.mroot(torch.zeros(0, 0), 3, -1, steps=3).shape == (0, 0)
    assert matfun.mroot(torch.zeros(0, 4, 4), 3, -1, steps=3).shape == (0, 4, 4)
    assert not matfun.mroot(torch.zeros(3, 3), 2, steps=12).any()


def _square_root(P):
    """P^(1/2) in 30 digits, in float64."""
    with mpmath.workdps(30):
        L, V = mpmath.eigsy(mpmath.matrix(P.tolist()))
        return torch.tensor((V * mpmath.diag([mpmath.sqrt(x) for x in L]) * V.T).tolist(), dtype=torch.float64)


@pytest.mark.parametrize("side", ["left", "right"])
def test_transforms_of_a_product_with_a_root(side):
    """vmap of jvp raised torch's internals, vmap too, and the gradient of a jvp was NaN.

    The change K of R = P^(1/2) in a direction D solves R K + K R = D, without any decomposition of ours.
    """
    g = torch.Generator().manual_seed(0)
    A, D = (torch.randn(3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    P, D = A @ A.mT + torch.eye(4, dtype=torch.float64), D + D.mT
    G, E = (torch.randn(3, 4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    eye = torch.eye(4, dtype=torch.float64)
    R = torch.stack([_square_root(p) for p in P])
    systems = torch.stack([torch.kron(r, eye) + torch.kron(eye, r) for r in R])
    K = torch.linalg.solve(systems, D.flatten(1)[..., None]).reshape(3, 4, 4)
    right = side == "right"
    change = E @ R + G @ K if right else R @ E + K @ G

    def product(P, G):
        return matfun.mroot(P, 2, times=G, side=side)

    def along(P, G):
        return torch.func.jvp(lambda p: product(p, G), (P,), (D[0],))[1].square().sum()

    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.vmap(product)(P, G), G @ R if right else R @ G, **close)
    torch.testing.assert_close(torch.func.jvp(product, (P, G), (D, E))[1], change, **close)
    mapped = torch.vmap(lambda p, q, d, e: torch.func.jvp(product, (p, q), (d, e))[1])(P, G, D, E)
    torch.testing.assert_close(mapped, change, **close)
    with torch.autograd.forward_ad.dual_level():
        dual = product(*(torch.autograd.forward_ad.make_dual(*pair) for pair in ((P, D), (G, E))))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, change, **close)
    slope = torch.func.grad(along, argnums=1)(P[0], G[0])
    torch.testing.assert_close(slope, 2 * (G[0] @ K[0] @ K[0] if right else K[0] @ K[0] @ G[0]), **close)
    with pytest.raises(RuntimeError, match="mroot can be differentiated once"):
        torch.func.grad(along)(P[0], G[0])


REFUSED = {
    "NaN for a root": (lambda P: matfun.mroot(P, 2, rtol=float("nan")), ValueError, r"rtol must be in \[0, 1\)"),
    "negative rtol": (lambda P: matfun.mroot(P, 2, rtol=-1), ValueError, r"rtol must be in \[0, 1\)"),
    "rtol that counts nothing": (lambda P: matfun.mroot(P, 2, rtol=2), ValueError, r"rtol must be in \[0, 1\)"),
    "polar's rtol": (lambda P: matfun.polar(P, rtol=float("nan")), ValueError, r"polar: rtol must be in \[0, 1\)"),
    "enormous power": (lambda P: matfun.mroot(P, 1, 10**400), ValueError, "s must be at most"),
    "NaN in times": (lambda P: matfun.mroot(P, 2, times=P * float("nan")), ValueError, r"mroot\(times=\): 9 of 9"),
    "infinite times": (lambda P: matfun.mroot(P, 2, times=P / 0, steps=4), ValueError, r"mroot\(times=\): 9 of 9"),
    "float32 overflow": (lambda P: matfun.mroot(1e30 * P, 1, 2), ValueError, "entries beyond 3.4e"),
    "float16 overflow": (lambda P: matfun.mroot(1e3 * P.half(), 1, 2), ValueError, "entries beyond 6.55e"),
    "float64 overflow": (lambda P: matfun.mroot(1e300 * P.double(), 1, 2), ValueError, "entries beyond 1.8e"),
    "inverse overflow": (lambda P: matfun.mroot(1e-300 * P.double(), 1, -2), ValueError, "entries beyond 1.8e"),
    "product overflow": (lambda P: matfun.mroot(P, 1, times=P * 1e38), ValueError, "entries beyond 3.4e"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_nan_infinite_or_nothing_without_a_word_is_refused(name):
    call, kind, said = REFUSED[name]
    with pytest.raises(kind, match=said):
        call(torch.eye(3) + 1)


@pytest.mark.parametrize("power", [2, -2, 200])
@pytest.mark.parametrize("scale", [1.0, 2.0**-5])
def test_powers_of_a_singular_matrix_keep_its_zeros(power, scale):
    """A zero times an overflowed unit of scale is none: for s = 200 the scale alone leaves float64 at 1e150."""
    P = torch.diag(torch.tensor([scale, scale / 2, 0.0], dtype=torch.float64))
    truth = torch.diag(torch.tensor([scale**power, (scale / 2) ** power, 0.0], dtype=torch.float64))
    assert relative_error(matfun.mroot(P, 1, power, tol=1e-9), truth) < 1e-9


@pytest.mark.parametrize("options", [{}, {"steps": 12}], ids=str)
def test_a_complex_factor_of_a_real_root(options):
    """Its imaginary part was dropped."""
    P, V, L = definite(4, 1)
    root = (V * L**0.5) @ V.mT
    g = torch.Generator().manual_seed(0)
    G = torch.randn(3, 4, dtype=torch.complex128, generator=g)
    found = matfun.mroot(P, 2, times=G, **options)
    assert found.dtype == torch.complex128
    torch.testing.assert_close(found, G @ root.to(G.dtype), rtol=0, atol=1e-8)
    assert matfun.mroot(P.float(), 2, times=G, **options).dtype == torch.complex64
    X = P.clone().requires_grad_()
    matfun.mroot(X, 2, times=G, **options).imag.sum().backward()
    Y = P.clone().requires_grad_()
    matfun.mroot(Y, 2, times=G.imag.clone(), **options).sum().backward()
    torch.testing.assert_close(X.grad, Y.grad, rtol=0, atol=1e-9)
