"""Columns whose error is far below sqrt(eps) ||A||: they are told apart, by the truth of 50 digits."""

import itertools

import mpmath
import pytest
import torch

from spectrain import lowrank
from spectrain.lowrank._columns.exchanges import swap

CASES = [
    (torch.float32, 1e-5, (8, 7), 3),
    (torch.float32, 1e-4, (6, 8), 3),
    (torch.float64, 1e-10, (8, 7), 3),
    (torch.float64, 1e-12, (6, 8), 3),
    (torch.complex128, 1e-11, (6, 6), 3),
]


def stepped(case, seed):
    """k values of 1, then all others far below: with any k independent columns what is left is small."""
    dtype, step, shape, k = case
    g = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    r, (U, V) = min(shape), (torch.linalg.qr(torch.randn(n, n, dtype=wide, generator=g)).Q for n in shape)
    S = torch.tensor([1.0] * k + [step] * (r - k), dtype=wide)
    return ((U[:, :r] * S) @ V[:, :r].mH).to(dtype)


class Truth:
    """The error of any set of columns of A, by Gram and Schmidt in 50 digits."""

    def __init__(self, A):
        self.rest = {(): [[mpmath.mpmathify(x) for x in column] for column in A.mT.tolist()]}

    def after(self, J):
        """What the columns J leave of all columns; the sets that begin alike share their work."""
        if J not in self.rest:
            before = self.after(J[:-1])
            size = mpmath.fsum(abs(x) ** 2 for x in before[J[-1]])
            q = [mpmath.conj(x) / size for x in before[J[-1]]]
            dots = [mpmath.fsum(a * b for a, b in zip(q, c, strict=True)) for c in before]
            self.rest[J] = [
                [b - d * a for a, b in zip(before[J[-1]], c, strict=True)] for c, d in zip(before, dots, strict=True)
            ]
        return self.rest[J]

    def left(self, J):
        with mpmath.workdps(50):
            return mpmath.sqrt(mpmath.fsum(abs(x) ** 2 for c in self.after(tuple(J)) for x in c))

    def least(self, k):
        return min(self.left(J) for J in itertools.combinations(range(len(self.rest[()])), k))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exhaustive_is_the_least_in_fifty_digits(case):
    for seed in range(2):
        A = stepped(case, seed)
        truth, k = Truth(A), case[3]
        best = truth.least(k)
        assert truth.left(lowrank.select_columns(A, k, method="exhaustive").tolist()) <= best * 1.001
        found = lowrank.interpolative(A, rank=k, method="exhaustive")
        assert truth.left(found.columns.tolist()) <= best * 1.001
        assert best <= float(found.error)


def by_differences(A, k):
    """||E||^2 less what each last column explains, for all sets before it: digits cancel."""
    best, chosen = torch.inf, None
    for J in itertools.combinations(range(A.shape[1]), k - 1):
        Q = torch.linalg.qr(A[:, list(J)]).Q
        E = A - Q @ (Q.mH @ A)
        left = E.abs().square().sum() - (E.mH @ E).abs().square().sum(0) / E.abs().square().sum(0)
        left[list(J)] = torch.inf
        if left.min() < best:
            best, chosen = left.min(), [*J, int(left.argmin())]
    return chosen


WRONG = {
    "the first columns": lambda A, k: list(range(k)),
    "largest norms": lambda A, k: A.abs().square().sum(0).topk(k).indices.tolist(),
    "pivots of QR": lambda A, k: lowrank.select_columns(A, k, method="pivoted_qr").tolist(),
    "differences of squares": by_differences,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_truth_rejects_other_columns(wrong):
    worst = 1
    for seed in range(2):
        A = stepped(CASES[2], seed)
        truth, k = Truth(A), CASES[2][3]
        worst = max(worst, truth.left(WRONG[wrong](A, k)) / truth.least(k))
    assert worst > 1.05


@pytest.mark.parametrize("case", CASES[2:], ids=str)
def test_each_step_and_each_end_of_exchanges_is_the_best_in_fifty_digits(case):
    for seed in range(2):
        A = stepped(case, seed)
        truth, k, n = Truth(A), case[3], A.shape[1]
        J = lowrank.select_columns(A, k, method="greedy").tolist()
        best = min(truth.left([*J[: k - 1], j]) for j in range(n) if j not in J[: k - 1])
        assert truth.left(J) <= best * 1.001
        J = swap(A, torch.arange(k)).tolist()
        others = [[*J[:i], j, *J[i + 1 :]] for i in range(k) for j in range(n) if j not in J]
        assert truth.left(J) <= min(map(truth.left, others)) * 1.001


def exact_error(A, *factors):
    """||A - product of the factors||_F in 50 digits."""
    with mpmath.workdps(50):
        A, product, *rest = (mpmath.matrix(F.tolist()) for F in (A, *factors))
        for F in rest:
            product = product * F
        return mpmath.sqrt(mpmath.fsum(x**2 for x in A - product))


def at_the_cut(seed):
    """Matrices with singular values at a rank cut, each as a tensor."""
    g = torch.Generator().manual_seed(seed)
    eps, turn = 2.0**-52, torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=g)).Q
    normal = torch.randn(6, 6, dtype=torch.float64, generator=g)
    yield torch.diag(torch.tensor([2.0, 1 + eps, 1.0], dtype=torch.float64))[torch.randperm(3, generator=g)] @ turn
    yield normal[:, :2] @ normal[:2, :5]
    yield normal[:, [0, 1, 0, 2, 1, 0]] + eps * normal
    yield normal * 10.0 ** -torch.arange(0, 18, 3).double()
    yield torch.ones(5, 6, dtype=torch.float64)


AT_CUTS = {
    "svd": lambda A, k: lowrank.svd(A, rank=k),
    "krylov": lambda A, k: lowrank.svd(A, rank=k, method="krylov", block=1),
    "krylov by products": lambda A, k: lowrank.svd(A.to_sparse(), rank=k, method="krylov", block=1),
    "interpolative": lambda A, k: lowrank.interpolative(A, rank=k),
    "interpolative by products": lambda A, k: lowrank.interpolative(A.to_sparse(), rank=k),
    "cur": lambda A, k: lowrank.cur(A, rank=k),
    "cross": lambda A, k: lowrank.cur(A, rank=k, core="cross"),
    "rows": lambda A, k: lowrank.svd(lowrank.RowBlocks(A, rows=2), rank=k),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("door", AT_CUTS)
def test_errors_hold_in_fifty_digits_at_each_cut(door, dtype):
    for A in at_the_cut(0):
        for k in (1, 2, 3):
            found = AT_CUTS[door](A.to(dtype), k)
            factors = (found.U, torch.diag(found.S), found.Vh) if hasattr(found, "S") else found.chain()
            assert exact_error(A.to(dtype), *factors) <= float(found.error)
            assert found.best is None or float(found.best) <= float(found.error)
