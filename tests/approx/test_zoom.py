"""Short Taylor models of long polynomials, large systems in many digits: against closed forms and exact fractions."""

import math

import numpy as np
import pytest
from flint import arb, arb_poly, fmpq, fmpq_mat, fmpq_poly

from spectrain.approx._balls.range import precise
from spectrain.approx._balls.refined import solve_refined
from spectrain.approx._balls.zoom import Zoom

N = 120


def chebyshev_polynomial(n):
    before, here = fmpq_poly([1]), fmpq_poly([0, 1])
    for _ in range(n - 1):
        before, here = here, fmpq_poly([0, 2]) * here - before
    return arb_poly([arb(c) for c in here.coeffs()])


def halved(depth):
    """Pieces as a proof asks for them: each, then its halves, left first."""
    queue = [(arb(-1), arb(1), 0)]
    while queue:
        a, b, level = queue.pop()
        middle = (a + b) / 2
        yield middle, b - middle
        if level < depth:
            queue += [(middle, b, level + 1), (a, middle, level + 1)]


def truth(x, derivative):
    """T_n = cos n t at x = cos t, and T_n' = n sin(n t) / sin t."""
    t = x.acos()
    return (N * t).cos() if not derivative else N * (N * t).sin() / t.sin()


def models_hold(zoom, depth=8):
    """Whether each model holds its polynomial and its slope, at points of its piece."""
    for m, r in halved(depth):
        model = zoom.model(m, r)
        for part in (-0.75, 0.0, 0.5):
            t = arb(part) * r
            if not (model(t).overlaps(truth(m + t, False)) and model.derivative()(t).overlaps(truth(m + t, True))):
                return False
    return True


def test_short_models_hold_the_polynomial_and_its_slope():
    with precise(400):
        zoom = Zoom(chebyshev_polynomial(N), arb(0), arb(1), threshold=arb(2) ** -60, highest=8)
        assert models_hold(zoom)
        # They are short where pieces are, and no wider than asked for.
        model = zoom.model(arb(0.3), arb(2) ** -9)
        assert model.length() < N / 4
        assert float(model(arb(0)).rad()) < 2.0**-58


class Forgetful(Zoom):
    """Cuts without a bound for what is cut."""

    def _nearer(self, view, m, r):
        return super()._nearer(view, m, r)._replace(cut=view.cut)


class Shallow(Zoom):
    """Bounds what is cut of the value alone, not of the slope."""

    def _nearer(self, view, m, r):
        found = super()._nearer(view, m, r)
        return found._replace(cut=[found.cut[0], *[arb(0)] * (len(found.cut) - 1)])


@pytest.mark.parametrize("wrong", [Forgetful, Shallow])
def test_models_without_a_bound_for_the_rest_are_refused(wrong):
    with precise(400):
        zoom = wrong(chebyshev_polynomial(N), arb(0), arb(1), threshold=arb(2) ** -60, highest=8)
        assert not models_hold(zoom)


def chebyshev_system(n):
    x = np.cos(np.pi * np.arange(n) / (n - 1))
    return np.column_stack([np.polynomial.chebyshev.chebvander(x, n - 2), (-1.0) ** np.arange(n)])


@pytest.mark.parametrize("bits", [128, 500])
def test_refined_systems_agree_with_fractions(bits):
    rows = chebyshev_system(40)
    right = np.exp(rows[:, 1])
    exact = fmpq_mat([[fmpq(*float(v).as_integer_ratio()) for v in row] for row in rows]).solve(
        fmpq_mat([[fmpq(*float(v).as_integer_ratio())] for v in right])
    )
    with precise(bits):
        found = solve_refined([[arb(v) for v in row] for row in rows], [arb(v) for v in right], rows)
        assert found is not None
        off = max(abs(v - arb(exact[k, 0])) for k, v in enumerate(found))
        assert float(off) < 2.0 ** (16 - bits)


def test_what_doubles_cannot_solve_is_handed_back():
    rows = np.vander(np.linspace(1, 1.001, 30))
    balls = [[arb(v) for v in row] for row in rows]
    with precise(200):
        assert solve_refined(balls, [arb(1)] * 30, rows) is None
        assert solve_refined(balls, [arb(1)] * 30, rows * math.nan) is None
