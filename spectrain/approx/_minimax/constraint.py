"""Linear conditions on the coefficients, eliminated before the search."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import arb, arb_mat, arb_poly

from spectrain.approx._balls.range import ball
from spectrain.approx._minimax.problem import Array, Problem

Condition = tuple[str, float | int, float | int]
"""("coefficient", n, v), ("value", x, v) or ("slope", x, v)."""

KINDS = ("coefficient", "value", "slope")


@dataclass(frozen=True)
class Constrained(Problem):
    """A problem whose polynomial meets ``conditions``: p = p0 + N y with N a basis of what they leave free."""

    conditions: tuple[Condition, ...] = ()

    @property
    def unknowns(self) -> int:
        return len(self.powers) - len(self.conditions)

    @cached_property
    def _elimination(self) -> tuple[list[arb], arb_mat]:
        """p0 and N in coordinates of the basis."""
        n, m = len(self.powers), len(self.conditions)
        units = [super(Constrained, self).polynomial([arb(int(i == j)) for i in range(n)]) for j in range(n)]
        z = arb_poly([-self.shift / self.scale, 1 / self.scale])
        units = [u(z) for u in units]
        A = [[_apply(u, kind, ball(at)) for u in units] for kind, at, _ in self.conditions]
        pivots = _pivots(np.array([[float(a) for a in row] for row in A]))
        free = [j for j in range(n) if j not in pivots]
        square = arb_mat([[row[j] for j in pivots] for row in A])
        rest = arb_mat([[ball(v), *(row[j] for j in free)] for row, (_, _, v) in zip(A, self.conditions, strict=True)])
        solved = square.solve(rest)
        p0, N = [arb(0)] * n, [[arb(0)] * len(free) for _ in range(n)]
        for k, j in enumerate(pivots):
            p0[j] = solved[k, 0].mid()
            N[j] = [(-solved[k, 1 + i]).mid() for i in range(len(free))]
        for i, j in enumerate(free):
            N[j][i] = arb(1)
        assert m == len(pivots)
        return p0, arb_mat(N)

    def _lift(self, c: Sequence[arb]) -> list[arb]:
        p0, N = self._elimination
        y = N * arb_mat([[v] for v in c])
        return [p + y[i, 0] for i, p in enumerate(p0)]

    def basis(self, x: Array) -> Array:
        _, N = self._elimination
        return super().basis(x) @ np.array([[float(v) for v in row] for row in N.tolist()])

    def basis_ball(self, x: arb) -> list[arb]:
        row = arb_mat([super().basis_ball(x)]) * self._elimination[1]
        return [row[0, j] for j in range(self.unknowns)]

    def polynomial(self, c: list[arb]) -> arb_poly:
        return super().polynomial(self._lift(c))

    def values(self, x: Array) -> tuple[Array, Array]:
        f, w = super().values(x)
        p0 = np.array([float(v) for v in self._elimination[0]])
        return f - super().basis(x) @ p0, w

    def values_ball(self, points: list[arb]) -> list[tuple[arb, arb]]:
        if not self.followed:
            return super().values_ball(points)
        p0, result = self._elimination[0], []
        for x, (f, w) in zip(points, super().values_ball(points), strict=True):
            row = super().basis_ball(x)
            result.append((f - sum((a * b for a, b in zip(row, p0, strict=True)), arb(0)), w))
        return result


def check_conditions(conditions: Sequence[Condition], powers: Sequence[int]) -> None:
    """Raise ValueError for unknown kinds, powers that are not there, or more conditions than leave one power free."""
    for kind, at, v in conditions:
        if kind not in KINDS:
            raise ValueError(f"constraints: the kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        if kind == "coefficient" and at not in powers:
            raise ValueError(f"constraints: there is no coefficient of x^{at}, the powers are {tuple(powers)}.")
        if not (np.isfinite(at) and np.isfinite(v)):
            raise ValueError(f"constraints: numbers must be finite, got {(kind, at, v)}.")
    if len(conditions) >= len(powers):
        raise ValueError(
            f"constraints: {len(conditions)} conditions leave nothing to choose among {len(powers)} powers; add powers."
        )


def _apply(u: arb_poly, kind: str, at: arb) -> arb:
    if kind == "coefficient":
        return u[int(float(at))]
    return u(at) if kind == "value" else u.derivative()(at)


def _pivots(A: Array) -> list[int]:
    """Columns on which the rows are independent, by elimination with the largest pivots."""
    A = A / np.maximum(np.abs(A).max(axis=1, keepdims=True), 1e-300)
    columns: list[int] = []
    for k in range(len(A)):
        rest = np.abs(A[k:])
        i, j = divmod(int(rest.argmax()), rest.shape[1])
        if rest[i, j] < 1e-13:
            raise ValueError("constraints: the conditions depend on each other or contradict; leave one out.")
        A[[k, k + i]] = A[[k + i, k]]
        columns.append(j)
        A[k + 1 :] -= np.outer(A[k + 1 :, j] / A[k, j], A[k])
    return columns
