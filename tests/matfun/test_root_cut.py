"""mroot next to its decisions, whatever LAPACK answers: proven against 50 digits, or refused.

Other LAPACKs are simulated: torch's eigh of the matrix plus a backward error of a few units.
"""

import warnings
from unittest import mock

import mpmath
import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven import semidefinite
from spectrain.matfun._proven.semidefinite import cut_factor, error_of_power, relative_noise, spectrum
from spectrain.testing import random_orthonormal

DOUBLE = torch.float64
EPS = torch.finfo(DOUBLE).eps
EIGH = torch.linalg.eigh
POWERS = [(2, 1), (2, -1), (1, -1), (1, 1), (3, -2), (1, 3)]


def other_lapack(units, seed):
    """torch.linalg.eigh of A + E, ||E|| = units eps ||A||."""
    g = torch.Generator().manual_seed(seed)

    def moved(A):
        E = torch.randn(A.shape, generator=g, dtype=DOUBLE).to(A.dtype)
        E = E + E.mT
        size = torch.linalg.matrix_norm(A, keepdim=True) / torch.linalg.matrix_norm(E, keepdim=True)
        return EIGH(A + units * EPS * size * E)

    return mock.patch("torch.linalg.eigh", moved)


def of_values(values, seed):
    V = random_orthonormal(len(values), len(values), generator=seed)
    P = (V * torch.tensor(values, dtype=DOUBLE)) @ V.mT
    return 0.5 * (P + P.mT)


def decomposition(P):
    with mpmath.workdps(50):
        return mpmath.eigsy(mpmath.matrix(P.double().tolist()))


def true_power(P, power, factor):
    """P^power over the eigenvalues above factor times the largest, from 50 digits, in float64."""
    with mpmath.workdps(50):
        L, V = decomposition(P)
        end = mpmath.mpf(factor) * max(abs(x) for x in L)
        image = mpmath.diag([x**power if x > end else 0 for x in L])
        return torch.tensor((V * image * V.T).tolist(), dtype=DOUBLE)


def distance(Y, truth):
    return float(torch.linalg.matrix_norm(Y.double() - truth) / torch.linalg.matrix_norm(truth))


def refused(call):
    """What a call returns, or None where it refuses with the reason."""
    try:
        return call()
    except ValueError as problem:
        assert "cannot prove" in str(problem)  # noqa: PT017
        return None


@pytest.mark.parametrize(("r", "s"), POWERS)
@pytest.mark.parametrize("units", [-1e9, -1e6, -20, -3, -1, 0, 1, 3, 20, 1e6, 1e9])
def test_an_eigenvalue_at_rtol(r, s, units):
    """What is decided is right to tol, and what is far enough from the cut is decided."""
    for seed in range(3):
        P = of_values([2.0, 1.0 + units * EPS, 0.5], seed)
        truth = true_power(P, mpmath.mpf(s) / r, 0.5)
        for lapack in (0.0, 1.0, 3.0):
            with other_lapack(lapack, seed):
                Y = refused(lambda P=P: matfun.mroot(P, r, s, rtol=0.5, tol=1e-5))
            assert Y is not None or abs(units) <= 1e6
            assert Y is None or abs(units) > 1
            assert Y is None or distance(Y, truth) < 1e-5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("half", [3e-9, 1e-7])
def test_a_cut_in_a_narrow_gap(seed, half):
    """Next to a cut the eigenvectors of both sides mix: the slope of the power alone called 1e-7 a proven 1e-10."""
    P = of_values([2.0, 1.0 + half, 1.0 - half, 0.3], seed)
    truth = true_power(P, mpmath.mpf(1) / 2, 0.5)
    with other_lapack(1.0, seed):
        found = refused(lambda: matfun.mroot(P, 2, rtol=0.5, tol=1e-10))
        loose = matfun.mroot(P, 2, rtol=0.5, tol=1e-5)
    assert found is None
    assert distance(loose, truth) < 1e-5
    assert half > 1e-8 or distance(loose, truth) > 1e-10


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.9, 1.0, 1.1, 2.0, 30.0, 1e4])
def test_an_eigenvalue_at_the_rounding_noise(factor):
    """Inverse roots are refused where it may count or not; roots are bounded by what it can add; P itself stays."""
    noise = relative_noise(4, DOUBLE)
    for seed in range(3):
        P = of_values([1.0, 0.7, 0.3, factor * noise], seed)
        for r, s, tol in ((2, 1, 1e-6), (2, -1, 1e-2), (1, 1, 1e-10), (1, 2, 1e-10)):
            truth = true_power(P, mpmath.mpf(s) / r, noise)
            for lapack in (0.0, 1.0):
                with other_lapack(lapack, seed):
                    Y = refused(lambda P=P, r=r, s=s, tol=tol: matfun.mroot(P, r, s, tol=tol))
                assert Y is None or distance(Y, truth) < tol, (r, s)
                assert Y is not None or s < 0, (r, s)
                assert Y is not None or factor > 0, (r, s)


@pytest.mark.parametrize("factor", [-30.0, -4.0, -2.0, -1.2, -1.0, -0.8, -0.3, 0.0])
def test_an_eigenvalue_at_minus_the_rounding_noise(factor):
    """Below it P is not semidefinite; within rounding of it nobody knows; above it is zero."""
    noise = relative_noise(4, DOUBLE)
    for seed in range(5):
        P = of_values([1.0, 0.7, 0.3, factor * noise], seed)
        with mpmath.workdps(50):
            L = decomposition(P)[0]
            below = min(L) < -mpmath.mpf(noise) * max(L)
        for lapack in (0.0, 1.0, 2.0):
            with other_lapack(lapack, seed):
                try:
                    matfun.mroot(P, 2, -1, tol=1e-6)
                    said = "semidefinite"
                except ValueError as problem:
                    said = "in doubt" if "cannot tell on which side" in str(problem) else "not semidefinite"
            assert said != ("semidefinite" if below else "not semidefinite")
            assert said == "not semidefinite" or factor > -4
            assert said == "semidefinite" or factor < -0.3
    batch = torch.stack([torch.eye(4, dtype=DOUBLE), of_values([1.0, 0.7, 0.3, -noise], 0)])
    with pytest.warns(RuntimeWarning, match="eigenvalues of matrix 1 lie within rounding of minus the rounding noise"):
        matfun.mroot(batch, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 30, 100])
def test_deficient_matrices_are_not_in_doubt(n):
    """Zeros that rounding has moved are below the cut for every LAPACK: no warning, and the right power."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed, rank in enumerate(sorted({1, (n + 1) // 2, max(1, n - 1), n})):
            Q = random_orthonormal(n, rank, generator=seed)
            L = torch.linspace(0.2, 1.0, rank, dtype=DOUBLE)
            for values in (L, torch.ones_like(L)):
                P, truth = (Q * values) @ Q.mT, (Q * values**-0.5) @ Q.mT
                for lapack in (0.0, 1.0):
                    with other_lapack(lapack, seed):
                        assert distance(matfun.mroot(P, 2, -1), truth) < 1e-10
                        single = matfun.mroot(P.float(), 2, -1)
                assert distance(single, truth) < 1e-4
                assert distance(matfun.mroot(torch.complex(P, 0 * P), 2, -1).real, truth) < 1e-10
    assert not matfun.mroot(torch.zeros(n, n), 2, rtol=0.0).any()
    padded = torch.nn.functional.pad(of_values([3.0, 1.0, 0.5], 1), (2, 1, 2, 1))
    with other_lapack(1.0, 0):
        inverse = matfun.mroot(padded, 1, -1, rtol=0.0, tol=1e-10)
    assert distance(inverse, true_power(padded, -1, 1e-9)) < 1e-10


@pytest.mark.parametrize("power", [0.5, -0.5, 1.0, 2.0, -1.0, 0.0])
def test_the_bound_holds_for_every_spectrum_within_it(power):
    """The bound against the worst of random symmetric changes of known size, their powers from 50 digits."""
    P = of_values([2.0, 1.01, 0.99, 0.2], 3)
    size = 1e-4
    found = spectrum(P[None], DOUBLE, 0.5)
    found = found._replace(delta=torch.tensor([size], dtype=DOUBLE), most=found.most + size)
    image = torch.where(found.keep, found.L**power, 0.0)
    bound = float(error_of_power(found, image, power))
    base = torch.bmm(found.V * image[:, None, :], found.V.mT)[0]
    worst = 0.0
    for seed in range(20):
        E = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        E = (E + E.mT) / torch.linalg.matrix_norm(E + E.mT) * size
        worst = max(worst, distance(base, true_power(P + E, power, 0.5)))
    assert worst <= bound < 40 * worst + 1e-9


WRONG_SIDES = {
    "by L itself": lambda L, keep, delta, cut, zero, rest: RIGHT(L, keep, 0 * delta, cut, zero, 0 * rest),
    "a hundredth of the error": lambda L, keep, delta, cut, zero, rest: RIGHT(
        L, keep, 0.01 * delta, cut, zero, 0.01 * rest
    ),
}
RIGHT = semidefinite._sides


@pytest.mark.parametrize("name", WRONG_SIDES)
def test_the_check_rejects_wrong_decisions(name):
    """Some LAPACK makes each of them return the power of a matrix of another rank without a word."""
    wrong = 0
    with mock.patch("spectrain.matfun._proven.semidefinite._sides", WRONG_SIDES[name]):
        for seed in range(5):
            for units in (-1, 0, 1):
                P = of_values([2.0, 1.0 + units * EPS, 0.4], seed)
                truth = true_power(P, -1, 0.5)
                for lapack in (0.0, 1.0, 3.0):
                    with other_lapack(lapack, seed):
                        Y = refused(lambda P=P: matfun.mroot(P, 1, -1, rtol=0.5, tol=1e-6))
                    wrong += Y is not None and distance(Y, truth) > 1e-6
    assert wrong > 0


def test_the_cut_does_not_depend_on_lapack():
    assert cut_factor(5, DOUBLE, None) == EPS * 13
    assert cut_factor(4, torch.float32, None) == torch.finfo(torch.float32).eps * 2
    assert cut_factor(5, DOUBLE, 1e-3) == 1e-3
