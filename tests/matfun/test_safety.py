"""A fixed number of steps is safe in the tail, not in the median: no result has a singular value beyond its limit."""

import itertools

import pytest
import torch

from benchmarks.matfun import msign_safety as safety
from spectrain import approx, matfun
from spectrain.matfun._iteration.bounded import growth, size_by_distance
from spectrain.matfun._iteration.finish import distance
from spectrain.matfun._iteration.gram import gram_iteration
from spectrain.matfun._iteration.plain import plain_iteration, start_for

SHAPES = ((1, 1), (2, 2), (3, 7), (8, 8), (1, 64), (16, 32), (64, 32), (64, 128))
MEASURED = 3  # more steps are looked at by the program: each makes nine designs


def _held(batches):
    """The batches looked at; asserts the limit of their dtype for every result, and that none was tried twice."""
    cases, before = [], matfun.planning.tries().second
    for X, case in batches:
        if case["form"] == "measured" and case["steps"] > MEASURED:
            continue
        sizes, excess = safety.results(X, case["steps"], case["dtype"], case["form"])
        assert float(sizes.max()) <= safety.LIMITS[case["dtype"]], case
        assert excess <= 1, case
        cases.append(case)
    assert matfun.planning.tries().second == before
    return cases


def test_no_result_is_beyond_its_limit():
    """Singular values of the Gram matrix in float64: at most 1.02, in bfloat16, native and emulated, 1.05. No step
    exceeds the bound of its design. Every 73rd batch of each shape, beginning where every family and number of steps,
    and all dtypes and forms, have their turn.
    """
    drawn = itertools.chain(*(safety.batches(shape, 40, 9 * i, 73) for i, shape in enumerate(SHAPES)))
    cases = _held(drawn)
    assert sum(case["batch"] for case in cases) > 5000
    assert {case["family"] for case in cases} == set(safety.FAMILIES)
    assert {case["steps"] for case in cases} == set(safety.STEPS)
    assert {(case["dtype"], case["form"]) for case in cases} == {cell for k in safety.STEPS for cell in safety.cells(k)}


@pytest.mark.full
@pytest.mark.parametrize("shape", [(8, 8), (16, 32), (32, 64), (64, 128), (170, 170), (256, 704)], ids=str)
def test_no_result_of_many_is_beyond_its_limit(shape):
    assert len(_held(safety.batches(shape, 10 * safety.COUNTS[shape], 10_000_000))) > 50


def _exact(steps):
    return approx.sign_schedule(0.4 * 0.3 ** (steps - 1), steps=steps)


def _unit(X):
    return (X / torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)).bfloat16()


def _plain(X, steps):
    unit = _unit(X)
    return plain_iteration(unit, _exact(steps).polynomials, start=start_for([unit]))


def _gram(X, steps):
    unit = _unit(X)
    return gram_iteration([unit], _exact(steps).polynomials, start=start_for([unit]), cuts=(1, 3))[0]


WRONG = {
    "the exact optimum, plain": (_plain, 5),
    "the exact optimum, Gram with restarts (1, 3)": (_gram, 5),
    "Jordan's five quintics": (
        lambda X, steps: plain_iteration(
            _unit(X), (approx.Polynomial.odd(3.4445, -4.775, 2.0315),) * steps
        ),
        5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_measure_rejects_wrong_schedules(name):
    wrong, steps = WRONG[name]
    bases = safety.Bases(torch.Generator().manual_seed(0))
    X = torch.cat([make(40, 16, 32, bases) for make in safety.FAMILIES.values()])
    assert float(safety.largest(wrong(X, steps)).max()) > safety.LIMITS["bfloat16"]


def test_what_blew_up_is_seen_in_the_result():
    """Where the exact optimum in Gram form leaves its bounds by far, growth, a bound from below, is beyond 1.1 too, and
    so is the size by the distance from orthonormal rows.
    """
    X = torch.randn(500, 16, 32, generator=torch.Generator().manual_seed(0))
    Y = _gram(X, 5)
    blown = safety.largest(Y) > 2
    assert int(blown.sum()) > 0
    assert (growth(Y)[blown] > 1.1).all()
    assert (size_by_distance(distance([Y]))[blown] > 1.1).all()


def test_the_largest_singular_value_is_that_of_lapack():
    g = torch.Generator().manual_seed(0)
    for shape in ((3, 5, 9), (3, 9, 5), (2, 1, 1)):
        X = torch.randn(shape, generator=g, dtype=torch.float64)
        torch.testing.assert_close(safety.largest(X), torch.linalg.matrix_norm(X, 2), rtol=1e-13, atol=0)
    strange = torch.tensor([torch.nan, 1e200, 0.0], dtype=torch.float64)[:, None, None]
    assert safety.largest(strange).tolist() == [torch.inf, 1e200, 0.0]
