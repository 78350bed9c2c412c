"""The smallest singular values finished exactly, and the schedule chosen for the spectrum that is there."""

import itertools

import numpy as np
import pytest
import torch

from spectrain import approx, matfun
from spectrain.matfun._iteration.finish import distance, finish_size, finish_smallest, finish_where_needed
from spectrain.matfun._iteration.measured import candidates, measured_lowers, quadrature
from spectrain.matfun._iteration.plain import start_for
from spectrain.testing import exact_msign, polar_error, relative_error, with_singular_values


def _finished(Y, count, floor):
    return finish_smallest([Y], count, floor)[0]


NO_FLOOR = torch.zeros(1, dtype=torch.float64)


def nearly(small, k=40, n=60, seed=0):
    """A matrix whose singular values are all 1 but for those named."""
    s = torch.cat([torch.ones(k - len(small), dtype=torch.float64), torch.tensor(small, dtype=torch.float64)])
    return with_singular_values(s, k, n, generator=seed)[None]


@pytest.mark.parametrize("tall", [False, True])
def test_what_is_missing_is_added_exactly(tall):
    Y = nearly([0.9, 0.5, 0.1, 1e-4])
    truth = exact_msign(Y[0])
    Z = (_finished(Y.mT, 6, NO_FLOOR).mT if tall else _finished(Y, 6, NO_FLOOR))[0]
    assert relative_error(Z, truth) < 1e-9
    wrong = {
        "nothing done": Y[0],
        "too few": _finished(Y, 3, NO_FLOOR)[0],
        "one Newton-Schulz step": 1.5 * Y[0] - 0.5 * Y[0] @ Y[0].mT @ Y[0],
        "orthonormal, not polar": torch.linalg.qr(Y[0].mT)[0].mT,
    }
    for name, W in wrong.items():
        assert relative_error(W, truth) > 0.05, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_no_singular_space_is_not_finished(dtype):
    """More directions are missing than there is room for: two rounds of the power method tell them apart only in part,
    and the result had singular values of 1.41. Raising all that the block holds still does.
    """
    s = torch.cat([torch.ones(100), torch.linspace(0.98, 0.2, 70)]).double()
    Y = with_singular_values(s, 170, 200, generator=0)[None].to(dtype)
    most = 1.02 if dtype == torch.float32 else 1.05
    assert torch.linalg.matrix_norm(_finished(Y, 16, torch.zeros(1)).double(), 2) < most
    X = with_singular_values(torch.logspace(0, -2, 170), 170, 170, generator=3).float()
    for steps in range(1, 8):
        assert torch.linalg.matrix_norm(matfun.msign(X, steps=steps, dtype=dtype).double(), 2) < most
    rows = torch.randn(16, 170, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        rows = rows - rows @ Y[0].float() @ Y[0].float().mT
    Q = torch.linalg.qr(rows.mT)[0]
    T = Q.mT @ Y[0].float()
    wrong = Y[0].float() + Q @ (exact_msign(T).float() - T)
    assert torch.linalg.matrix_norm(wrong, 2) > most


@pytest.mark.parametrize("shape", [(200, 400), (400, 200)], ids=str)
def test_what_lacks_nothing_is_left_and_what_lacks_something_is_finished(shape):
    """The polar error is at most the larger of twice 0.01 and of the schedule's error, whichever way is taken."""
    full, lacking = torch.linspace(0.99, 1.01, 200).double(), torch.linspace(0.99, 1.01, 200).double()
    lacking[:3] = torch.tensor([0.5, 0.1, 0.02])
    whole, less = (with_singular_values(s, *shape, generator=0)[None].bfloat16() for s in (full, lacking))
    floor = torch.zeros(1)
    (same,) = finish_where_needed([whole], 16, floor, distance([whole]), 0.004)
    assert same is whole
    Ys = [whole, less, torch.cat([less, whole])]
    found = finish_where_needed(Ys, 16, floor.expand(4), distance(Ys), 0.004)
    assert found[0] is whole
    for Y, before in zip(found[1:], Ys[1:], strict=True):
        assert Y.dtype == torch.float32
        assert (relative_error(Y, exact_msign(before.float())) < 0.02).all()
    assert relative_error(less[0].float(), exact_msign(less[0].float())) > 0.05  # not finished: rejected
    (left,) = finish_where_needed([less], 16, floor, distance([less]), 0.3)  # by a schedule that is no more exact
    assert left is less


def test_what_counts_as_zero_stays():
    Y = nearly([0.3, 0.01])
    s = torch.linalg.svdvals(_finished(Y, 6, NO_FLOOR + 0.05)[0])
    torch.testing.assert_close(s[-2:], torch.tensor([1.0, 0.01], dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert torch.equal(_finished(torch.zeros(2, 5, 7), 3, torch.zeros(2)), torch.zeros(2, 5, 7))


def test_more_than_it_can_catch_is_left_alone():
    Y = nearly([0.2] * 20)
    torch.testing.assert_close(_finished(Y, 6, NO_FLOOR), Y, rtol=0, atol=0)


def test_rounding_noise_of_the_input_is_not_finished():
    """Rank 250 of 256 in bfloat16: the six directions of noise are not moved to 1; without the floor they are."""
    X = with_singular_values(torch.linspace(1, 0.3, 250), 256, 320, generator=0).bfloat16()
    size = torch.linalg.matrix_norm(matfun.msign(X, steps=3).double())
    assert float(size**2) < 251.5
    assert finish_size(256) >= 6
    exact = matfun.msign(X.float(), steps=6)
    assert float(torch.linalg.matrix_norm(exact.double()) ** 2) > 253


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_quadrature_sees_the_distribution(dtype):
    """The mass below each of five points, beside the true one; another spectrum is told apart."""
    k = 160
    uniform, high = torch.linspace(0.02, 1, k), torch.linspace(0.4, 1, k)
    found = {}
    for name, s in {"uniform": uniform, "high": high}.items():
        X = with_singular_values(s, k, 2 * k, generator=0)
        start = start_for([(X / X.norm() * 0.9).to(dtype)[None]])
        q = quadrature(start.G, start.top)
        assert float(q.weights.sum()) == pytest.approx(1, abs=1e-5)
        scale = float(torch.linalg.matrix_norm(X / X.norm() * 0.9, 2) / start.top[0])
        found[name] = [float(q.weights[0][q.nodes[0] <= x * scale].sum()) for x in (0.2, 0.35, 0.5, 0.7, 0.9)]
    true = {n: [float((s <= x).float().mean()) for x in (0.2, 0.35, 0.5, 0.7, 0.9)] for n, s in
            {"uniform": uniform, "high": high}.items()}  # fmt: skip
    for name in found:
        other = "high" if name == "uniform" else "uniform"
        assert max(abs(a - b) for a, b in zip(found[name], true[name], strict=True)) < 0.15, name
        assert max(abs(a - b) for a, b in zip(found[name], true[other], strict=True)) > 0.2, name


def test_the_measured_lower_end_is_within_a_factor_of_the_best(full):
    """On four spectra the chosen design is at most half as far off again as the best of the candidates."""
    k = 160
    spectra = {
        "well conditioned": torch.linspace(0.5, 1, k),
        "uniform": torch.linspace(0.01, 1, k),
        "two decades": torch.logspace(0, -2, k),
        "a strong direction": torch.cat([torch.ones(1), torch.linspace(0.02, 0.1, k - 1)]),
    }
    for name, s in spectra.items():
        X = with_singular_values(s, k, k + 40, generator=1).float()
        for steps in (3, 5) if full else (3,):
            errors = {
                low: float(polar_error(matfun.msign(X, steps=steps, lower=low), X))
                for low in candidates(steps, torch.float32)
            }
            chosen = float(polar_error(matfun.msign(X, steps=steps, lower="measured"), X))
            assert chosen <= 1.5 * min(errors.values()) + 0.002, (name, steps)
            assert max(errors.values()) > 1.5 * min(errors.values()) + 0.002, (name, steps)


def test_matrices_of_one_call_take_different_schedules():
    g = torch.Generator().manual_seed(0)
    matrices = [torch.randn(160, 640, generator=g), torch.randn(640, 160, generator=g)]
    matrices += [with_singular_values(torch.logspace(0, -2.5, 160), 160, 640, generator=2).float()]
    start = start_for([(X if X.shape[0] == 160 else X.mT)[None] / X.norm() for X in matrices])
    lowers = measured_lowers(quadrature(start.G, start.top), 160, 3, torch.float32, finish=True)
    assert lowers[0] == lowers[1] > 1.5 * lowers[2]
    together = matfun.msign(matrices, steps=3, lower="measured")
    for X, Y in zip(matrices, together, strict=True):
        torch.testing.assert_close(Y, matfun.msign(X, steps=3, lower="measured"), rtol=0, atol=1e-4)
    default = polar_error(matfun.msign(matrices[0], steps=3), matrices[0])
    assert polar_error(together[0], matrices[0]) < 0.5 * default


def test_no_candidate_makes_a_singular_value_larger_than_is_safe(full):
    """The errors are taken anew, on a grid of the interval; 0.36 for one step, the end once tried first, is refused."""
    x = np.linspace(0, 1, 20_001)
    for steps, dtype in itertools.product((1, 2, 5, 7) if full else (1, 5), ("float32", "bfloat16")):
        lowers = candidates(steps, getattr(torch, dtype))
        assert list(lowers) == sorted(lowers, reverse=True)
        assert len(lowers) >= 2
        for low in lowers:
            assert np.max(approx.sign_schedule(low, steps=steps, dtype=dtype)(x)) <= 1.0161
    assert np.max(approx.sign_schedule(0.36, steps=1, dtype="float32")(x)) > 1.02


@pytest.mark.parametrize("bad", [0, 1, -0.1, "guess"])
def test_a_lower_end_is_checked(bad):
    with pytest.raises(ValueError, match=r'must be in \(0, 1\) or "measured"'):
        matfun.msign(torch.eye(3), steps=2, lower=bad)
    with pytest.raises(ValueError, match="goes with steps="):
        matfun.msign(torch.eye(3), lower=0.1)
