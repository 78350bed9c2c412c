"""Matrices on which column rules go wrong, real tables, and errors by LAPACK in float64. Shared by the tests here."""

import itertools
import math

import numpy as np
import scipy.linalg
import torch
from sklearn import datasets

from spectrain.testing import with_singular_values

TABLES = ("breast_cancer", "wine", "diabetes", "iris", "linnerud", "digits")


def table(name):
    """A bundled table, columns standardised, constant columns left out."""
    X = getattr(datasets, f"load_{name}")().data
    X = X[:, X.std(0) > 0]
    return torch.tensor((X - X.mean(0)) / X.std(0))


def kahan(n, c=0.285):
    """Kahan's matrix; columns shrink a little so that rounding does not change the pivots of QR."""
    K = np.diag(math.sqrt(1 - c * c) ** np.arange(n)) @ (np.eye(n) - c * np.triu(np.ones((n, n)), 1))
    return torch.tensor(K * (1 - 1e-10 * np.arange(n)))


def left_over(A, J):
    """||A - A_J pinv(A_J) A||_F in float64 by LAPACK's least squares."""
    A = np.asarray(A.to(torch.complex128 if A.is_complex() else torch.float64))
    C = A[:, np.asarray(J)]
    return float(np.linalg.norm(A - C @ scipy.linalg.lstsq(C, A, lapack_driver="gelsd")[0]))


def best_error(A, k):
    """The Frobenius error of the best matrix of rank k, in float64."""
    s = np.linalg.svd(np.asarray(A.to(torch.complex128 if A.is_complex() else torch.float64)), compute_uv=False)
    return float(np.linalg.norm(s[k:]))


def optimum(A, k):
    """The least error of any k columns: all subsets, by the QR of each."""
    return min(left_over(A, J) for J in itertools.combinations(range(A.shape[1]), k))


def hard_cases(count, seed=0):
    """Small matrices with a rank each: structure that fools norms, leverage, pivots, blocks or interpolation."""
    g = torch.Generator().manual_seed(seed)
    rng = lambda low, high: int(torch.randint(low, high, (), generator=g))  # noqa: E731
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    makers = (
        lambda m, n: normal(m, n),
        lambda m, n: with_singular_values(torch.logspace(0, -rng(1, 12), min(m, n)).double(), m, n, generator=g),
        lambda m, n: normal(m, n).index_select(1, torch.randint(max(2, n // 3), (n,), generator=g)),
        lambda m, n: normal(m, n) * torch.logspace(0, -8, n, dtype=torch.float64),
        lambda m, n: torch.eye(m, n, dtype=torch.float64)[:, torch.randperm(n, generator=g)] + 1e-9 * normal(m, n),
        lambda m, n: torch.ones(m, n, dtype=torch.float64) + 10.0 ** -rng(1, 7) * normal(m, n),
        lambda m, n: torch.eye(m, n, dtype=torch.float64) * 10.0 ** -rng(1, 4) + (torch.arange(m) == 0)[:, None],
        lambda m, n: kahan(max(m, n))[:m, :n],
        lambda m, n: 1 / (torch.arange(m)[:, None] + torch.arange(n) + 1.0).double(),
        lambda m, n: torch.linspace(-1, 1, n).double() ** torch.arange(m)[:, None],
        lambda m, n: torch.block_diag(100 * normal(m // 2, 2) @ normal(2, n // 2), normal(m - m // 2, n - n // 2)),
        lambda m, n: normal(m, n).sign(),
    )
    for case in range(count):
        m, n = rng(4, 13), rng(5, 17)
        A = makers[case % len(makers)](m, n)
        yield A, rng(1, min(m, n))
