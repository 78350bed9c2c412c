"""Independent truths on random problems: Sollya, dense search in 50 digits, and linear programs on a grid."""

import re
import shutil
import subprocess
from decimal import Decimal
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from spectrain.approx import minimax

FUNCTIONS = {
    "exp(x)": (np.exp, mpmath.exp),
    "sin(x)": (np.sin, mpmath.sin),
    "cos(2*x)": (lambda x: np.cos(2 * x), lambda x: mpmath.cos(2 * x)),
    "1/(1+x*x)": (lambda x: 1 / (1 + x * x), lambda x: 1 / (1 + x * x)),
    "log(4+x)": (lambda x: np.log(4 + x), lambda x: mpmath.log(4 + x)),
    "sqrt(5+x)": (lambda x: np.sqrt(5 + x), lambda x: mpmath.sqrt(5 + x)),
    "atan(x)": (np.arctan, mpmath.atan),
    "exp(-x*x)": (lambda x: np.exp(-x * x), lambda x: mpmath.exp(-x * x)),
    "x*exp(x)": (lambda x: x * np.exp(x), lambda x: x * mpmath.exp(x)),
}
WEIGHTS = {
    "1": None,
    "exp(-x)": (lambda x: np.exp(-x), lambda x: mpmath.exp(-x)),
    "1/(1+x*x)": FUNCTIONS["1/(1+x*x)"],
    "1+x*x": (lambda x: 1 + x * x, lambda x: 1 + x * x),
}


def random_problem(rng):
    """(name of f, powers, interval, name of weight) with a Chebyshev system of powers."""
    f = str(rng.choice(list(FUNCTIONS)))
    weight = str(rng.choice(list(WEIGHTS)))
    kind = rng.integers(4)
    if kind < 2:
        powers = tuple(range(int(rng.integers(2, 9))))
        a, b = sorted(float(v) for v in rng.uniform(-2, 2, size=2))
    else:
        a = float(rng.uniform(0.05, 1))
        b = a + float(rng.uniform(0.3, 1.5))
        count = int(rng.integers(2, 5))
        powers = (
            tuple(range(1, 2 * count, 2)) if kind == 2 else tuple(sorted(rng.choice(7, count, replace=False).tolist()))
        )
    return f, powers, (a, max(b, a + 0.1)), weight


def exactly(x):
    """All decimal digits of a double."""
    return str(Decimal(x))


needs_sollya = pytest.mark.skipif(shutil.which("sollya") is None, reason="Sollya is not installed (apt install sollya)")
COUNT = 44


def ask_sollya(problems):
    """The least errors, one process for all."""
    lines = ["prec=220!;", "display=decimal!;"]
    for f, powers, (a, b), weight in problems:
        listed = ",".join(map(str, powers))
        domain = f"[{exactly(a)};{exactly(b)}]"
        # Sollya minimises |p w - g|; with g = w f that is our weighted error.
        lines += [
            f"w={weight}; g=({weight})*({f}); p=remez(g,[|{listed}|],{domain},w,1b-70);",
            f'print("E", dirtyinfnorm(p*w-g,{domain}));',
        ]
    run = subprocess.run(["sollya"], input="\n".join([*lines, "quit;"]), capture_output=True, text=True, timeout=240)
    return [float(v) for v in re.findall(r"^E ([-+0-9.e]+)", run.stdout, flags=re.M)]


@needs_sollya
def test_least_errors_agree_to_twelve_digits(record_property):
    record_property("cases", COUNT)
    rng = np.random.default_rng(20250605)
    problems = [random_problem(rng) for _ in range(COUNT)]
    theirs = ask_sollya(problems)
    assert len(theirs) == COUNT
    for problem, truth in zip(problems, theirs, strict=True):
        result = solve(problem)
        assert result.error == pytest.approx(truth, rel=1e-12), problem
        assert result.lower <= truth * (1 + 1e-15), problem
        assert result.upper >= truth * (1 - 1e-15), problem


@needs_sollya
def test_the_comparison_sees_a_wrong_interval():
    problem = ("exp(x)", (0, 1, 2), (0.0, 1.0), "1")
    truth = ask_sollya([problem])[0]
    assert solve(problem).error == pytest.approx(truth, rel=1e-12)
    wrong = minimax(np.exp, (0, 1, 2), (0.0, 1.0 + 1e-9))
    assert wrong.error != pytest.approx(truth, rel=1e-12)


def solve(problem):
    f, powers, interval, weight = problem
    w = WEIGHTS[weight]
    return minimax(FUNCTIONS[f][0], powers, interval, weight=w[0] if w else None)


def error_in_fifty_digits(result, problem):
    f, w = FUNCTIONS[problem[0]][1], WEIGHTS[problem[3]]
    coefficients = [mpmath.mpf(c.numerator) / c.denominator for c in result.exact]

    def error(x):
        p = sum(c * x**n for c, n in zip(coefficients, problem[1], strict=True))
        return (w[1](x) if w else 1) * (f(x) - p)

    return error


def check(seed, points):
    problem = random_problem(np.random.default_rng(seed))
    result = solve(problem)
    a, b = problem[2]
    with mpmath.workdps(50):
        error = error_in_fifty_digits(result, problem)
        x = [mpmath.mpf(v) for v in np.linspace(a, b, points)] + [mpmath.mpf(v) for v in result.reference]
        largest = max(abs(error(v)) for v in x)
        assert result.proven
        assert largest <= result.upper
        assert result.lower <= result.upper
        assert largest >= result.upper * (1 - mpmath.mpf(10) ** -12)
        # A lower bound by another road: alternating errors of the returned polynomial at its reference.
        values = [error(mpmath.mpf(v)) for v in result.reference]
        assert all(p * q < 0 for p, q in pairwise(values))
        assert result.lower <= max(map(abs, values)) * (1 + mpmath.mpf(10) ** -13)
        assert result.lower >= min(map(abs, values)) * (1 - mpmath.mpf(10) ** -12)
    assert result.gap <= 1e-12


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_certificates_hold_in_fifty_digits(seed):
    check(seed, points=60)


@pytest.mark.full
@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_thousand_certificates_hold_in_fifty_digits(seed):
    check(seed, points=120)


@pytest.mark.parametrize("seed", range(12))
def test_the_least_error_agrees_with_a_linear_program_on_a_grid(seed):
    problem = random_problem(np.random.default_rng(seed))
    f, powers, (a, b), weight = problem
    result = solve(problem)
    x = (a + b) / 2 - (b - a) / 2 * np.cos(np.linspace(0, np.pi, 600))
    w = WEIGHTS[weight][0](x) if WEIGHTS[weight] else np.ones_like(x)
    basis, _ = np.linalg.qr((x[:, None] / max(abs(a), abs(b))) ** np.array(powers) * w[:, None])
    g = FUNCTIONS[f][0](x) * w
    # Less its least squares fit, in an orthonormal basis, the target has the same best error and the program size 1;
    # on monomials HiGHS ends without an answer for one problem in fifty.
    rest = g - basis @ (basis.T @ g)
    size, B, one = abs(rest).max(), basis * len(x) ** 0.5, np.ones((len(x), 1))
    program = linprog(
        np.append(np.zeros(len(powers)), 1.0),
        A_ub=np.block([[B, -one], [-B, -one]]),
        b_ub=np.concatenate([rest, -rest]) / size,
        bounds=[(None, None)] * len(powers) + [(0, None)],
        method="highs-ipm",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert program.success, program.message
    # Degree 7 on 600 points: an extremum half a step from the grid shows (7 pi / 1200)^2 / 2 = 1.7e-4 less, all
    # together a third of that.
    least, noise = program.fun * size, 1e-15 * abs(g).max()
    assert least == pytest.approx(result.error, rel=1e-4, abs=noise)
    assert least <= result.upper * (1 + 1e-9) + noise
