"""The Gram iteration: equal to the plain one, stable where Gram matrices are noisy, shared by all of one short side."""

import itertools

import pytest
import torch

from spectrain import approx, matfun
from spectrain.approx._schedules.widened import odd_coefficients
from spectrain.matfun._iteration import gram as _gram
from spectrain.matfun._iteration.design import schedule_for_steps
from spectrain.matfun._iteration.gram import (
    coefficients,
    gram_cuts,
    gram_iteration,
    gram_products,
    multiplier,
    plain_products,
    safe_cuts,
)
from spectrain.matfun._iteration.plain import gram, plain_iteration, start_for
from spectrain.testing import exact_msign, polar_error, relative_error, spectral_function, with_singular_values, zoo

UNIT = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
DESIGNS = ((0.3, 2), (0.2, 3), (0.05, 4), (0.02, 5), (3e-3, 5), (3e-3, 6), (1e-3, 7))


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3)], ids=str)
def test_it_composes_the_polynomials_exactly_as_the_plain_iteration(cuts):
    schedule = approx.sign_schedule(0.1, products=18)
    X = with_singular_values(torch.linspace(0.2, 1, 6), 6, 17, generator=0) / 4
    Xs = [X[None], torch.stack([X.mT, 0.5 * X.mT]), X[None, :, :9]]
    together = _gram.gram_iteration(Xs, schedule.polynomials, start=start_for(Xs), cuts=cuts)
    for Y, Z in zip(together, Xs, strict=True):
        alone = plain_iteration(Z.clone(), schedule.polynomials, start=start_for([Z]))
        torch.testing.assert_close(Y, alone, rtol=0, atol=1e-11)
        assert relative_error(Y[-1], exact_msign(Z[-1])) < 1e-13


@pytest.mark.parametrize(("low", "steps"), DESIGNS)
@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_it_is_as_accurate_as_the_plain_iteration(dtype, low, steps):
    """On the zoo and on the spectrum it was designed for, beside twice the error of the plain one."""
    schedule = approx.sign_schedule(low, steps=steps, dtype=NAMES[dtype])
    if safe_cuts(schedule, dtype) is None:
        assert dtype == torch.bfloat16
        assert low < 0.05
        dtype = torch.float32  # what is designed for bfloat16 goes as well
    assert safe_cuts(schedule, dtype) is not None
    k, long_side = 48, 96
    animals = zoo(k, long_side, generator=steps)
    animals["designed for"] = with_singular_values(low ** torch.linspace(0, 0.9, k), k, long_side)
    for name, X in animals.items():
        X = X.to(torch.float32 if dtype == torch.bfloat16 else dtype)
        plain, long = (matfun.msign(X, schedule=schedule, dtype=dtype, method=m) for m in ("plain", "gram"))
        ideal = spectral_function(schedule, with_unit_norm(X))
        floor = 6 * UNIT[dtype] + (schedule.error if dtype == torch.bfloat16 else 60 * UNIT[dtype] / low)
        if name == "zero":
            assert not long.any()
        elif name in ("designed for", "gaussian", "orthonormal", "decades_2", "triangular"):
            assert polar_error(long, X) <= 2 * polar_error(plain, X) + floor, name
        assert torch.linalg.matrix_norm(long, 2) < 1.15 + schedule.error, name
        assert ideal.isfinite().all()


def with_unit_norm(X):
    return X / torch.linalg.matrix_norm(X, 2).clamp_min(1e-30)


def without_restarts(X, schedule, dtype):
    unit = (X / X.norm() * 0.9).to(dtype)[None]
    return _gram.gram_iteration([unit], schedule.polynomials, start=start_for([unit]))[0][0]


def test_in_bfloat16_two_steps_on_one_gram_matrix_are_not_safe():
    """The schedule of 2026-11-24 with its restarts (1, 3) made 1 of 24 matrices of 16 x 32 larger than 1.1, one 391,000
    times: rounding leaves a value past the end of the interval, where a quintic grows like the fifth power. Without
    restarts all small values blow up. The plain form of the same schedule, and ours, do not.
    """
    before = approx.sign_schedule(3.24e-3, steps=5)
    X = torch.randn(500, 16, 32, generator=torch.Generator().manual_seed(0))
    units = (X / torch.linalg.matrix_norm(X)[:, None, None]).bfloat16()
    for cuts in ((), (1, 3), (2,)):
        Y = _gram.gram_iteration([units.clone()], before.polynomials, start=start_for([units]), cuts=cuts)[0]
        assert not (torch.linalg.matrix_norm(Y.float().nan_to_num(1e9), 2) < 1.1).all()
    for schedule in (before, None):
        Y = matfun.msign(X, **({"schedule": schedule} if schedule else {"steps": 5}), dtype=torch.bfloat16)
        assert (torch.linalg.matrix_norm(Y, 2) < 1.05).all()


def test_restarts_come_with_small_values_and_coarse_numbers():
    counts = [safe_cuts(schedule_for_steps(steps, torch.float32), torch.float32) for steps in range(1, 13)]
    assert all(cuts is not None for cuts in counts)
    assert counts[3] == ()
    assert len(counts[4]) <= 1
    assert len(counts[-1]) >= 2
    finer = [safe_cuts(schedule_for_steps(steps, torch.float64), torch.float64) for steps in range(1, 13)]
    assert all(len(f) <= len(c) for f, c in zip(finer, counts, strict=True))
    schedule = approx.sign_schedule(1e-3, steps=5)
    assert safe_cuts(approx.Schedule(schedule.polynomials, 0.1, 15.0, (0.1, 1.0)), torch.float64) is None
    hopeless = approx.sign_schedule(1e-6, steps=12)
    assert safe_cuts(hopeless, torch.bfloat16) is None
    with pytest.raises(ValueError, match=r"not safe in torch.bfloat16 .* with 3 restarts"):
        matfun.msign(torch.eye(4, 8), schedule=hopeless, dtype=torch.bfloat16, method="gram")
    assert gram_cuts(hopeless, torch.bfloat16, (8, 80)) is None


def test_the_price_is_that_of_the_literature():
    """(20 a + 10) n^3 and (8 a + 28) n^3 flops for five quintics and one restart; break-even at 1.5."""
    schedule = approx.sign_schedule(0.05, steps=5)
    steps = coefficients(schedule)
    for a in (1.0, 1.5, 4.0):
        assert 2 * plain_products(steps, a) == 20 * a + 10
        assert 2 * gram_products(steps, (2,), a) == 8 * a + 28
    assert approx.sign_schedule(0.05, steps=5, gram=True, aspect=4).products == gram_products(steps, (2,), 4)
    assert gram_cuts(schedule, torch.float32, (100, 100)) is None
    assert gram_cuts(schedule, torch.float32, (100, 400)) is not None


def test_all_of_one_short_side_share_one_gram_batch(monkeypatch):
    """A, its transpose and longer ones run in one call; squares do not; each equals itself alone."""
    calls = []
    original = _gram.gram_iteration

    def counted(Xs, *args, **options):
        calls.append([tuple(X.shape) for X in Xs])
        return original(Xs, *args, **options)

    monkeypatch.setattr("spectrain.matfun._iteration.recipe.gram_iteration", counted)
    g = torch.Generator().manual_seed(0)
    shapes = [(16, 64), (64, 16), (16, 16), (16, 64), (2, 16, 48), (24, 96), (16, 20)]
    matrices = [torch.randn(s, generator=g) for s in shapes]
    together = matfun.msign(matrices, steps=4)
    assert sorted(map(sorted, calls)) == [[(1, 24, 96)], [(1, 64, 16), (2, 16, 48), (2, 16, 64)]]
    for X, Y in zip(matrices, together, strict=True):
        torch.testing.assert_close(Y, matfun.msign(X, steps=4), rtol=0, atol=2e-6)
        rolled = matfun.msign(X.roll(1, 0), steps=4)
        assert (Y - rolled).abs().max() > 1e-3


def test_parts_of_a_large_group_equal_the_whole(monkeypatch):
    g = torch.Generator().manual_seed(1)
    matrices = [torch.randn(8, 24, generator=g) for _ in range(7)]
    whole = matfun.msign(matrices, steps=3)
    monkeypatch.setattr("spectrain.matfun._entry.batches._MAX_ENTRIES", 400)
    for Y, Z in zip(whole, matfun.msign(matrices, steps=3), strict=True):
        torch.testing.assert_close(Y, Z, rtol=0, atol=1e-6)


def test_a_tall_matrix_is_as_exact_as_its_transpose():
    """R is a product of rounded factors that do not commute: tall matrices take its transpose, wide ones R itself."""
    X = torch.randn(2, 512, 192, generator=torch.Generator().manual_seed(0))
    X = X / torch.linalg.matrix_norm(X)[:, None, None]
    schedule, cuts = approx.sign_schedule(3.24e-3, steps=5, margin=1.0625), (1, 3)

    def iterated(Y):
        Y = Y.bfloat16().contiguous()
        return gram_iteration([Y], schedule.polynomials, start=start_for([Y]), cuts=cuts)[0].float()

    tall, wide = polar_error(iterated(X), X), polar_error(iterated(X.mT), X.mT)
    assert (tall < 1.2 * wide).all()
    truth, wrong = exact_msign(X), X.bfloat16()
    for begin, stop in itertools.pairwise((0, *cuts, 5)):  # X R, as it was
        segment = odd_coefficients(schedule.polynomials[begin:stop])
        wrong = wrong @ multiplier(gram(wrong), segment, upper=None if begin else 1.0)
    assert not (relative_error(wrong.float(), truth) < 1.2 * wide).all()


@pytest.mark.parametrize("steps", [10, 12])
def test_two_levels_in_float32_do_not_meet_a_dip(steps, monkeypatch):
    """The lower level meets a dip, where the noise of float32 sums decides; 12,000 and 9e10 with the roundoff alone."""
    monkeypatch.setattr(
        "spectrain.matfun._iteration.recipe.within_bounds", lambda Ys, sizes, error, again: Ys
    )  # as it comes out
    for i, low in enumerate(torch.linspace(0.0078, 0.0084, 12).tolist()):
        s = torch.full((64,), low, dtype=torch.float64)
        s[:23] = 1
        X = with_singular_values(s, 64, 128, generator=i).float()
        assert torch.linalg.matrix_norm(matfun.msign(X, steps=steps).double(), 2) < 1.02
