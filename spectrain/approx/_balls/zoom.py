"""A polynomial of high degree seen from near: short Taylor polynomials, each with a bound for what was cut."""

import math
from typing import NamedTuple

from flint import arb, arb_poly


class _View(NamedTuple):
    """``p(centre + radius u) = poly(u) + R(u)`` for |u| <= 1, the j-th Taylor coefficient of R in x at most
    ``cut[j]`` there."""

    centre: arb
    radius: arb
    poly: arb_poly
    cut: list[arb]


class Zoom:
    """Taylor models of a polynomial on pieces of an interval, each made from that of the piece it is a part of.

    On a piece much shorter than the polynomial's waves only a few Taylor coefficients are above ``threshold``; the
    others are cut off. ``highest`` is the number of Taylor coefficients to which what was cut is added. Made for
    pieces that come as halving makes them, one inside the other: a full expansion of degree n costs n^2, and is done
    a few times.
    """

    def __init__(self, polynomial: arb_poly, shift: arb, scale: arb, *, threshold: arb, highest: int) -> None:
        self.degree = max(polynomial.degree(), 0)
        self.threshold = threshold
        self.highest = highest
        self.views = [_View(shift, scale, polynomial, [arb(0)] * highest)]

    def model(self, m: arb, r: arb) -> arb_poly:
        """A Taylor model of ``p(m + t)``, true with its derivatives for |t| <= r: the coefficient of
        t^(highest - 1) has the rest in it."""
        view = self._view(m, r)
        terms = view.poly(arb_poly([0, 1 / view.radius]))
        if view.cut[0].is_zero():
            return terms
        return terms + arb_poly([arb(0, c) for c in view.cut])

    def _view(self, m: arb, r: arb) -> _View:
        while len(self.views) > 1 and not abs(m - self.views[-1].centre) + r <= self.views[-1].radius:
            self.views.pop()
        # A little wider, so that rounding leaves no half outside.
        self.views.append(self._nearer(self.views[-1], m, (r * (1 + arb(2) ** -10)).upper()))
        return self.views[-1]

    def _nearer(self, view: _View, m: arb, r: arb) -> _View:
        """The view of a part: shifted, and what is far below the threshold cut off."""
        terms = view.poly(arb_poly([(m - view.centre) / view.radius, r / view.radius])).coeffs()
        # C(n, j) bounds what a cut coefficient gives to the j-th derivative.
        allowed = self.threshold / math.comb(self.degree, min(self.highest, self.degree // 2))
        tail = arb(0)
        while len(terms) > self.highest and (more := tail + abs(terms[-1]).upper()) < allowed:
            tail = more.upper()
            terms.pop()
        if tail.is_zero():
            return _View(m, r, arb_poly(terms), view.cut)
        cut = [(c + math.comb(self.degree, j) * tail / r**j).upper() for j, c in enumerate(view.cut)]
        return _View(m, r, arb_poly(terms), cut)
