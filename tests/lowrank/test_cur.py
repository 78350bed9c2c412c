"""CUR: the best core, the cross core exact on what it saw, both counts, tolerances, and entries counted."""

import numpy as np
import pytest
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values, zoo


def decaying(m=30, n=22, decay=0.5, dtype=torch.float64):
    A = with_singular_values(decay ** torch.arange(min(m, n), dtype=torch.float64), m, n, generator=0)
    B = with_singular_values(decay ** torch.arange(min(m, n), dtype=torch.float64), m, n, generator=1)
    return (A + 1j * B).to(dtype) if dtype.is_complex else A.to(dtype)


def error(A, C, U, R):
    return float(torch.linalg.norm(A - C @ U @ R))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_optimal_core_is_that_of_pseudo_inverses_and_nothing_near_it_is_better(dtype):
    A = decaying(dtype=dtype)
    found = lowrank.cur(A, rows=7, columns=5)
    C, U, R = found
    assert (C.shape, U.shape, R.shape) == ((30, 5), (5, 7), (7, 22))
    assert torch.equal(C, A[:, found.columns])
    assert torch.equal(R, A[found.rows])
    truth = np.linalg.pinv(C.numpy()) @ A.numpy() @ np.linalg.pinv(R.numpy())
    np.testing.assert_allclose(U, truth, atol=1e-9 * abs(truth).max())
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 1e-4 * U.abs().max() * torch.randn(5, 7, dtype=dtype, generator=draw)
        assert error(A, C, U + step, R) > error(A, C, U, R)
    assert error(A, C, U, R) <= float(found.error) <= error(A, C, U, R) * (1 + 1e-6)


WRONG = {
    "cross": lambda A, C, R, rows, columns: torch.linalg.pinv(A[rows][:, columns]),
    "transposed": lambda A, C, R, rows, columns: torch.linalg.pinv(A[rows][:, columns]).mT,
    "normal equations in single": lambda A, C, R, rows, columns: (
        torch.linalg.pinv((C.mT @ C).float(), rtol=0).double()
        @ C.mT
        @ A
        @ R.mT
        @ torch.linalg.pinv((R @ R.mT).float(), rtol=0).double()
    ),
    "one pseudo-inverse": lambda A, C, R, rows, columns: torch.linalg.pinv(C) @ A[:, columns],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_error_of_the_optimal_core_rejects_other_cores(wrong):
    A = decaying()
    found = lowrank.cur(A, rank=6)
    C, _, R = found
    assert error(A, C, wrong(A, C, R, found.rows, found.columns), R) > float(found.error) * (1 + 1e-6)


def test_the_guarantee_of_two_guaranteed_sides():
    for name, A in zoo(20, 26, generator=3).items():
        s = torch.linalg.svdvals(A)
        for k in (1, 4, 9):
            found = lowrank.cur(A, rank=k)
            noise = 1e-9 * float(s[0])
            assert error(A, *found) <= (2 + 2 * k) ** 0.5 * float(s[k:].norm()) + noise, (name, k)
            assert float(found.best) == pytest.approx(float(s[k:].norm()), abs=1e-12 * float(s[0]))


def test_the_cross_core_is_exact_on_what_it_saw_and_better_with_more_rows():
    A = decaying()
    found = lowrank.cur(A, rank=6, core="cross")
    left = A - found.dense()
    assert left[found.rows].abs().max() < 1e-10
    assert left[:, found.columns].abs().max() < 1e-10
    best = lowrank.cur(A, rows=found.rows, columns=found.columns)
    assert float(best.error) <= float(found.error)
    wide = lowrank.cur(A, rows=14, columns=found.columns, core="cross")
    assert set(found.rows.tolist()) <= set(wide.rows.tolist())
    assert float(wide.error) < float(found.error)
    assert float(found.error) < 8 * float(torch.linalg.svdvals(A)[6:].norm())


def test_an_epsilon_keeps_a_singular_intersection_from_exploding():
    draw = torch.Generator().manual_seed(0)
    noise = 1e-9 * torch.randn(40, 40, dtype=torch.float64, generator=draw)
    A = with_singular_values([1.0, 0.5, 0.1], 40, 40, generator=1) + noise
    careful = lowrank.cur(A, rank=12, core="cross", epsilon=1e-7)
    assert int(careful.rank) == 3
    assert error(A, *careful) < 1e-6
    assert careful.U.abs().max() < 1e4


@pytest.mark.parametrize("core", ["optimal", "cross"])
def test_a_tolerance_is_kept_by_both_cores(core):
    for name, A in zoo(18, 16, generator=4).items():
        for rtol in (0.3, 1e-3):
            size = float(torch.linalg.norm(A))
            found = lowrank.cur(A, rtol=rtol, core=core)
            assert error(A, *found) <= rtol * size * (1 + 1e-6) + 1e-12 * size, (name, rtol)


@pytest.mark.parametrize("core", ["optimal", "cross"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_tolerance_that_no_core_reaches_is_told_and_the_error_stays_near_sqrt_eps(core, dtype):
    """Values over fifteen decades: |U| is one over the smallest that is kept, and its rounding costs as much."""
    A = with_singular_values(10.0 ** -torch.arange(16, dtype=torch.float64), 30, 20, generator=0).to(dtype)
    wide, near = A.double(), 5 * torch.finfo(dtype).eps ** 0.5
    for rtol in (1e-10, 1e-14):
        with pytest.warns(RuntimeWarning, match="cur: the tolerance is below rounding"):
            found = lowrank.cur(A, rtol=rtol, core=core)
        C, U, R = (F.double() for F in found)
        assert error(wide, C, U, R) <= float(found.error) < near * float(wide.norm())
        naive = torch.linalg.pinv(wide[found.rows][:, found.columns], rtol=1e-16).to(dtype)
        assert error(wide, C, naive.double(), R) > 3 * error(wide, C, U, R)


@pytest.mark.parametrize("core", ["optimal", "cross"])
@pytest.mark.parametrize("kind", [lambda A: A, torch.Tensor.to_sparse])
def test_columns_beyond_the_numerical_rank_do_no_harm(core, kind):
    A = with_singular_values([1.0, 1.0, 1.0, 1.0, 1e-12], 30, 20, generator=0)
    for rank in (4, 5, 6, 12):
        found = lowrank.cur(kind(A), rank=rank, core=core)
        assert (
            error(A, *found) <= float(found.error) < 1e-10
        )  # 2e-5 as it was; of sparse ones the error is a bound by probes
        assert found.C.shape == (30, rank)
        assert int(found.rank) == 4


def test_indices_of_the_caller_and_numpy():
    A = decaying().numpy()
    found = lowrank.cur(A, rows=[3, 1, 4], columns=np.array([2, 7]))
    assert found.rows.tolist() == [3, 1, 4]
    assert found.columns.tolist() == [2, 7]
    assert isinstance(found.U, np.ndarray)
    np.testing.assert_array_equal(found.C, A[:, [2, 7]])


def expensive(A):
    asked = {"rows": [], "columns": []}

    def row(i):
        asked["rows"].append(i)
        return A[i]

    def column(j):
        asked["columns"].append(j)
        return A[:, j]

    return row, column, asked


def test_single_rows_and_columns_are_asked_for_once_and_counted():
    x, y = torch.linspace(0, 1, 300, dtype=torch.float64), torch.linspace(2, 3, 200, dtype=torch.float64)
    A = 1 / (x[:, None] - y)
    row, column, asked = expensive(A)
    found = lowrank.cross(row, column, (300, 200), rtol=1e-6)
    assert error(A, *found) <= 3e-6 * float(torch.linalg.norm(A))
    assert len(set(asked["rows"])) == len(asked["rows"])
    assert len(set(asked["columns"])) == len(asked["columns"])
    assert found.evaluated == 200 * len(asked["rows"]) + 300 * len(asked["columns"])
    assert found.evaluated < 0.15 * A.numel()
    assert float(found.error) == pytest.approx(error(A, *found), rel=3)
    assert found.failure != found.failure  # an estimate, no bound
    assert torch.equal(found.C, A[:, found.columns])
    assert torch.equal(found.R, A[found.rows])


def test_the_estimate_of_the_error_is_right_in_the_mean():
    A = decaying(40, 30, 0.7)
    squares, truths = [], []
    for seed in range(60):
        found = lowrank.cross(lambda i: A[i], lambda j: A[:, j], (40, 30), rank=3, checks=2, generator=seed)
        squares.append(float(found.error) ** 2)
        truths.append(error(A, *found) ** 2)
    assert np.mean(squares) == pytest.approx(np.mean(truths), rel=0.5)


def test_cross_of_low_rank_stops_by_itself_and_of_zero_at_once():
    A = with_singular_values([3.0, 2.0], 25, 35, generator=2)
    found = lowrank.cross(lambda i: A[i], lambda j: A[:, j], (25, 35), rank=9)
    assert int(found.rank) == 2
    assert error(A, *found) < 1e-12
    zero = lowrank.cross(lambda i: torch.zeros(5), lambda j: torch.zeros(4), (4, 5), rtol=0.1, checks=2)
    assert int(zero.rank) == 0
    assert not zero.dense().any()


BAD = {
    "no stop": (lambda A: lowrank.cur(A), "needs a stop"),
    "one count and no rank": (lambda A: lowrank.cur(A, rows=2), "give both"),
    "a tolerance and counts": (lambda A: lowrank.cur(A, rtol=0.1, rows=2, columns=2), "no tolerance"),
    "too many rows": (lambda A: lowrank.cur(A, rows=31, columns=2), "rows must be between 1 and 30"),
    "an index out of range": (lambda A: lowrank.cur(A, rows=[0, 30], columns=2), "from 0 to 29"),
    "an index twice": (lambda A: lowrank.cur(A, rows=[1, 1], columns=2), "different"),
    "another core": (lambda A: lowrank.cur(A, rank=2, core="best"), "core"),
    "epsilon 1": (lambda A: lowrank.cur(A, rank=2, epsilon=1.0), "epsilon"),
    "NaN": (lambda A: lowrank.cur(A * torch.nan, rank=2), "NaN"),
    "rows too short": (lambda A: lowrank.cross(lambda i: A[i, :3], lambda j: A[:, j], (30, 22), rank=2), "22 entries"),
    "rows with NaN": (lambda A: lowrank.cross(lambda i: A[i] * torch.nan, lambda j: A[:, j], (30, 22), rank=2), "NaN"),
    "no checks": (lambda A: lowrank.cross(lambda i: A[i], lambda j: A[:, j], (30, 22), rank=2, checks=0), "checks"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_told(call, words):
    with pytest.raises(Exception, match=words):
        call(decaying())
