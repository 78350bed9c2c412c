"""Column rules: each keeps its guarantee where others break theirs; exchanges never worsen; real tables."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch

from spectrain import lowrank
from spectrain.lowrank._columns.exchanges import fit, swap
from spectrain.lowrank._columns.pivoted_qr import pivoted_qr
from spectrain.lowrank._columns.rules import RULES
from spectrain.testing import zoo

sys.path.insert(0, str(Path(__file__).parent))
from columns_zoo import TABLES, best_error, hard_cases, kahan, left_over, optimum, table

UNGUIDED = {"norms", "norm_sampling", "uniform", "leverage", "leverage_sampling", "kmeans", "optim_rid"}
GUARANTEED = ("auto", "osinsky", "exhaustive")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def within_the_guarantee(A, J, k):
    """The (1 + k) law, with the rounding level of the matrix added."""
    return left_over(A, J) <= (1 + k) ** 0.5 * best_error(A, k) + 1e-13 * len(A) * float(torch.linalg.norm(A))


@pytest.mark.parametrize("rule", GUARANTEED)
def test_never_above_the_root_of_one_plus_k(rule, full):
    for A, k in hard_cases(1000 if full else 72):
        J = lowrank.select_columns(A, k, method=rule)
        assert len(set(J.tolist())) == k
        assert within_the_guarantee(A, J, k), (rule, k, A)


WRONG = {
    "the first columns": lambda A, k: torch.arange(k),
    "largest norms": lambda A, k: lowrank.select_columns(A, k, method="norms"),
    "largest leverage": lambda A, k: lowrank.select_columns(A, k, method="leverage"),
    "uniform": lambda A, k: lowrank.select_columns(A, k, method="uniform"),
    "norms as chances": lambda A, k: lowrank.select_columns(A, k, method="norm_sampling"),
    "pivots of some": lambda A, k: lowrank.select_columns(A, k, method="optim_rid", oversample=0),
    "centres of clusters": lambda A, k: lowrank.select_columns(A, k, method="kmeans"),
    "columns least explained, not most": lambda A, k: pivoted_qr(A, A.shape[1]).columns[-k:] if len(A) > k else None,
    "osinsky on the rows": lambda A, k: lowrank.select_columns(A.mT, k, method="osinsky") % A.shape[1],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_guarantee_rejects_rules_that_have_none(wrong):
    def broken(A, k):
        J = wrong(A, k)
        return J is not None and not within_the_guarantee(A, J, k)

    assert any(broken(A, k) for A, k in hard_cases(72))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (12, 600)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_pivots_are_those_of_lapack_and_what_is_left_is_the_error(shape, dtype):
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(*shape, dtype=dtype, generator=draw) * torch.logspace(0, -3, shape[1])
    k = 9
    one, batch = pivoted_qr(A, k), pivoted_qr(torch.stack([A, 2 * A.flip(1)]), k)
    for mine, X, scale in ((one, A, 1), (pivoted_qr(A.flip(1), k), A.flip(1), 1)):
        R, order = scipy.linalg.qr(X.numpy(), mode="r", pivoting=True)
        assert mine.columns.tolist() == order[:k].tolist()
        assert float(mine.left[k]) == pytest.approx(scale * np.linalg.norm(R[k:]), rel=1e-9)
        assert torch.linalg.norm(X - mine.Q @ mine.R).item() == pytest.approx(float(mine.left[k]), rel=1e-9)
        assert torch.dist(mine.Q.mH @ mine.Q, torch.eye(k, dtype=dtype)) < 1e-13
        assert torch.linalg.norm(mine.R[:, mine.columns].tril(-1)) < 1e-12 * torch.linalg.norm(A)
    assert torch.equal(batch.columns[0], one.columns)
    assert torch.equal(batch.columns[1], pivoted_qr(A.flip(1), k).columns)


def test_pivoted_qr_stops_early_where_enough_is_explained():
    for name, A in zoo(40, 60).items():
        norm = torch.linalg.norm(A)
        for stop in (0.3, 1e-4, 1e-9):
            done = pivoted_qr(A, 40, stop=stop * norm)
            k = int(done.rank)
            J = done.columns.tolist()
            noise = 1e-12 * float(norm)
            assert not k or left_over(A, J[:k]) <= float(stop * norm) * (1 + 1e-6) + noise, name
            assert k <= 1 or left_over(A, J[: k - 1]) > float(stop * norm) * (1 - 1e-6) - noise, name
            assert len(set(J)) == len(J)
    assert int(pivoted_qr(torch.zeros(4, 5), 3).rank) == 0


@pytest.mark.parametrize("n", [40, 90])
def test_strong_rank_revealing_qr_where_pivoted_qr_fails(n):
    A, k = kahan(n), n - 1
    s = torch.linalg.svdvals(A)

    def largest(J):
        return float(torch.linalg.lstsq(A[:, J], A).solution.abs().max())

    for bound in (1.5, 2.0, 10.0):
        J = lowrank.select_columns(A, k, method="strong_rrqr", bound=bound)
        assert largest(J) <= bound * (1 + 1e-6)
        assert left_over(A, J) <= (1 + bound**2 * k * (n - k)) ** 0.5 * float(s[k]) * (1 + 1e-6)
        assert torch.linalg.svdvals(A[:, J])[-1] >= s[k - 1] / (1 + bound**2 * k * (n - k)) ** 0.5
    assert largest(lowrank.select_columns(A, k, method="pivoted_qr")) > 100


def test_strong_rank_revealing_qr_on_hard_cases(full):
    for A, k in hard_cases(1000 if full else 72, seed=1):
        n, s = A.shape[1], torch.linalg.svdvals(A)
        if s[k - 1] < 1e-11 * s[0]:
            continue
        J = lowrank.select_columns(A, k, method="strong_rrqr")
        C = A[:, J]
        spectral = torch.linalg.matrix_norm(A - C @ torch.linalg.lstsq(C, A, driver="gelsd").solution, 2)
        sigma = s[k] if k < len(s) else 0.0
        assert spectral <= (1 + 4 * k * (n - k)) ** 0.5 * sigma + 1e-13 * float(s[0]) * n


def test_exhaustive_is_the_optimum_and_greedy_the_best_step():
    for A, k in hard_cases(24, seed=2):
        k = min(k, 3)
        noise = 1e-12 * float(torch.linalg.norm(A))
        assert left_over(A, lowrank.select_columns(A, k, method="exhaustive")) <= optimum(A, k) * (1 + 1e-9) + noise
        J = lowrank.select_columns(A, k, method="greedy").tolist()
        for t in range(k):
            best = min(left_over(A, [*J[:t], j]) for j in range(A.shape[1]) if j not in J[:t])
            assert left_over(A, J[: t + 1]) <= best * (1 + 1e-9) + noise


def test_exchanges_never_worsen_and_end_where_no_exchange_helps():
    for A, k in hard_cases(36, seed=3):
        for start in (torch.arange(k), lowrank.select_columns(A, k, method="uniform")):
            before, J = left_over(A, start), swap(A, start)
            after = left_over(A, J)
            assert after <= before * (1 + 1e-12) + 1e-300
            if fit(A, J) is None:
                continue
            for i, j in itertools.product(range(k), set(range(A.shape[1])) - set(J.tolist())):
                other = J.clone()
                other[i] = j
                assert left_over(A, other) >= after * (1 - 1e-6) - 1e-12 * float(torch.linalg.norm(A))


@pytest.mark.parametrize("name", TABLES[:5])
def test_within_three_percent_of_the_optimum_on_real_tables(name, full):
    A = table(name)
    for k in range(1, min(6, A.shape[1] - 1) + 1):
        if k > 4 and A.shape[1] > 20 and not full:
            continue
        truth = left_over(A, lowrank.select_columns(A, k, method="exhaustive"))
        assert left_over(A, lowrank.select_columns(A, k)) <= 1.03 * truth


@pytest.mark.parametrize("k", [10, 20])
def test_on_digits_no_worse_than_pivoted_qr_qdeim_and_osinsky(k):
    A = table("digits")
    others = (left_over(A, lowrank.select_columns(A, k, method=rule)) for rule in ("pivoted_qr", "qdeim", "osinsky"))
    assert left_over(A, lowrank.select_columns(A, k)) <= min(others)


def test_adaptive_pivoting_keeps_its_mean_and_its_probabilities():
    A = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, 10)
    k, draws, draw = 3, 400, torch.Generator().manual_seed(1)
    squares, first = [], torch.zeros(10, dtype=torch.float64)
    for _ in range(draws):
        J = lowrank.select_columns(A, k, method="adaptive", generator=draw)
        squares.append(left_over(A, J) ** 2)
        first[J[0]] += 1 / draws
    spread = np.std(squares) / draws**0.5
    assert np.mean(squares) <= (1 + k) * best_error(A, k) ** 2 + 3 * spread
    scores = torch.linalg.svd(A).Vh[:k].square().sum(0) / k
    assert (first - scores).abs().max() < 4 * (0.25 / draws) ** 0.5
    assert (first - 0.1).abs().max() > 4 * (0.25 / draws) ** 0.5


def test_robust_blocks_do_not_take_the_same_direction_twice():
    draw = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(30, 8, dtype=torch.float64, generator=draw)).Q
    A = (directions * torch.logspace(0, -2, 8, dtype=torch.float64)).repeat(1, 40)
    J = lowrank.select_columns(A, 8, method="random_pivoting", block=8)
    assert left_over(A, J) < 1e-12
    at_once = torch.multinomial(A.square().sum(0), 8, generator=draw)
    assert left_over(A, at_once) > 1e-3


def test_interpolation_points_keep_their_bound():
    for A, k in hard_cases(72, seed=4):
        _, S, Vh = torch.linalg.svd(A, full_matrices=False)
        if S[k - 1] < 1e-10 * S[0] or k == len(S):
            continue
        for rule in ("deim", "qdeim"):
            J = lowrank.select_columns(A, k, method=rule)
            C = A[:, J]
            error = torch.linalg.matrix_norm(A - C @ torch.linalg.lstsq(C, A, driver="gelsd").solution, 2)
            amplified = torch.linalg.matrix_norm(torch.linalg.inv(Vh[:k, J]), 2)
            assert error <= amplified * S[k] * (1 + 1e-6) + 1e-13 * S[0]


@pytest.mark.parametrize("extra", [0, 3])
def test_optim_rid_takes_the_pivots_of_lapack_among_columns_drawn_evenly(extra):
    """Which columns were drawn shows: all that are taken, and none that would have come before them."""
    A = torch.randn(20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -4, 12)
    A, k, draws = A.flip(1), 4, 600
    among = {
        tuple(subset[i] for i in scipy.linalg.qr(A.numpy()[:, subset], mode="r", pivoting=True)[1][:k])
        for subset in map(list, itertools.combinations(range(12), k + extra))
    }
    found, draw = [], torch.Generator().manual_seed(1)
    for _ in range(draws):
        found.append(lowrank.select_columns(A, k, method="optim_rid", oversample=extra, generator=draw).tolist())
    assert {tuple(J) for J in found} <= among
    # The largest column, the last one, is the first pivot wherever it is drawn, which is in (k + extra) / 12 of all.
    share, expected = sum(J[0] == 11 for J in found) / draws, (k + extra) / 12
    assert abs(share - expected) < 4 * (0.25 / draws) ** 0.5
    whole = lowrank.select_columns(A, k, method="optim_rid", oversample=12)
    assert whole.tolist() == scipy.linalg.qr(A.numpy(), mode="r", pivoting=True)[1][:k].tolist()


def test_columns_are_drawn_in_proportion_to_their_norms():
    norms, draws = torch.tensor([4.0, 3.0, 2.0, 1.0]).double(), 2000
    A, draw = torch.eye(6, 4, dtype=torch.float64) * norms, torch.Generator().manual_seed(0)
    first = torch.zeros(4).double()
    second = torch.zeros(4).double()
    for _ in range(draws):
        i, j = lowrank.select_columns(A, 2, method="norm_sampling", generator=draw).tolist()
        first[i] += 1 / draws
        second[j] += 1 / draws
    share = norms / 10
    after = torch.stack([share[i] * share / (1 - share[i]) * (torch.arange(4) != i) for i in range(4)]).sum(0)
    for found, truth in ((first, share), (second, after)):
        assert (found - truth).abs().max() < 4 * (0.25 / draws) ** 0.5
    for wrong in (norms.square() / norms.square().sum(), torch.full((4,), 0.25).double()):
        assert (first - wrong).abs().max() > 4 * (0.25 / draws) ** 0.5


@pytest.mark.parametrize("rule", sorted(RULES))
def test_one_suite_for_every_rule(rule):
    draw = torch.Generator().manual_seed(5)
    state = torch.random.get_rng_state()
    A = torch.randn(14, 11, dtype=torch.complex128, generator=draw)
    A = torch.stack([A, A @ torch.diag(torch.logspace(0, -4, 11)).to(A.dtype)])
    for dtype in DTYPES:
        X = A.to(dtype) if dtype.is_complex else A.real.to(dtype)
        J = lowrank.select_columns(X, 4, method=rule, generator=3)
        assert J.shape == (2, 4)
        assert J.dtype == torch.int64
        assert all(len(set(item)) == 4 for item in J.tolist())
        assert torch.equal(J, lowrank.select_columns(X, 4, method=rule, generator=3))
        if dtype == torch.float64:
            assert torch.equal(J[0], lowrank.select_columns(X[0], 4, method=rule, generator=3))
            scaled = lowrank.select_columns(X * 2.0**-600, 4, method=rule, generator=3)
            assert torch.equal(scaled, J)
            mine = lowrank.select_columns(X[0].numpy(), 4, method=rule, generator=3)
            assert isinstance(mine, np.ndarray)
            assert mine.tolist() == J[0].tolist()
            refined = lowrank.select_columns(X[1], 4, method=rule, refine=True, generator=3)
            assert left_over(X[1], refined) <= left_over(
                X[1], lowrank.select_columns(X[1], 4, method=rule, generator=3)
            )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("rule", sorted(set(RULES) - UNGUIDED))
def test_sparse_matrices_and_operators_find_the_independent_columns(rule):
    dense = np.zeros((30, 20))
    dense[:, [3, 7, 11]] = np.random.default_rng(0).standard_normal((30, 3))
    dense[:, 5] = dense[:, 3] - 2 * dense[:, 7]
    for A in (
        scipy.sparse.csr_array(dense),
        torch.tensor(dense).to_sparse(),
        scipy.sparse.linalg.aslinearoperator(dense),
    ):
        J = lowrank.select_columns(A, 3, method=rule)
        assert left_over(torch.tensor(dense), np.asarray(J)) < 1e-10


BAD = {
    "rank 0": (lambda A: lowrank.select_columns(A, 0), "between 1 and 3"),
    "rank above": (lambda A: lowrank.select_columns(A, 4), "between 1 and 3"),
    "rank of another type": (lambda A: lowrank.select_columns(A, 0.5), "rank"),
    "unknown rule": (lambda A: lowrank.select_columns(A, 2, method="qr"), "method must be one of"),
    "a bound of 1": (lambda A: lowrank.select_columns(A, 2, method="strong_rrqr", bound=1.0), "above 1"),
    "NaN": (lambda A: lowrank.select_columns(A.fill_(torch.nan), 2), "NaN or infinite"),
    "a vector": (lambda A: lowrank.select_columns(A[0], 1), "needs a matrix"),
    "empty": (lambda A: lowrank.select_columns(A[:, :0], 1), "at least one row"),
    "integers": (lambda A: lowrank.select_columns(A.long(), 1), "floating"),
    "too many subsets": (lambda A: lowrank.select_columns(A.repeat(40, 40), 9, method="exhaustive"), "subsets"),
    "a float seed": (lambda A: lowrank.select_columns(A, 1, method="uniform", generator=0.5), "generator"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(torch.ones(3, 5) + torch.eye(3, 5))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_degenerate_matrices_give_different_columns(rule):
    for A in (
        torch.zeros(4, 6),
        torch.ones(4, 6),
        torch.ones(1, 6),
        torch.ones(6, 1),
        torch.eye(4)[:, [0, 0, 1, 1, 2, 3]],
    ):
        k = min(2, *A.shape)
        J = lowrank.select_columns(A.double(), k, method=rule)
        assert len(set(J.tolist())) == k
        assert 0 <= int(J.min()) <= int(J.max()) < A.shape[1]
