"""Streamed statistics are those of all rows at once, whatever the pieces; quantiles within their 1 %."""

import math

import pytest
import torch

from spectrain import nn


def pieces(scale=1.0):
    g = torch.Generator().manual_seed(0)
    mix = torch.diag(torch.linspace(1, 0.01, 12)) @ torch.linalg.qr(torch.randn(12, 12, generator=g)).Q
    return [scale * torch.randn(*shape, 12, generator=g) @ mix for shape in ((5,), (2, 30), (3, 1, 400))]


def gathered(parts, **options):
    seen = nn.activations.Statistics(**options)
    for part in parts:
        seen.add(part)
    return seen


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_moments_and_spectrum_are_those_of_all_rows_at_once(scale):
    parts = pieces(scale)
    X = torch.cat([part.flatten(0, -2) for part in parts]).double()
    seen, s = gathered(parts), torch.linalg.svdvals(X)
    assert (seen.calls, seen.rows, seen.numbers, seen.not_finite) == (3, len(X), X.numel(), 0)
    assert math.isclose(seen.mean, X.mean(), rel_tol=1e-9, abs_tol=1e-12 * scale)
    assert math.isclose(seen.rms, X.square().mean().sqrt(), rel_tol=1e-12)
    assert seen.largest == X.abs().max()
    torch.testing.assert_close(seen.singular_values(), s, rtol=1e-9, atol=1e-8 * s[0].item())
    assert math.isclose(seen.spectral_norm, torch.linalg.matrix_norm(X, 2), rel_tol=1e-9)
    assert math.isclose(seen.stable_rank, s.square().sum() / s[0] ** 2, rel_tol=1e-9)
    share = s / s.sum()
    assert math.isclose(seen.effective_rank, (-(share * share.log()).sum()).exp(), rel_tol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_quantiles_are_within_one_percent(scale):
    parts = pieces(scale)
    falling = torch.cat([part.flatten() for part in parts]).double().sort().values
    seen = gathered(parts)
    for q in (0.0, 0.001, 0.1, 0.37, 0.5, 0.9, 0.999, 1.0):
        truth = falling[min(len(falling) - 1, int(q * len(falling)))].item()
        assert abs(seen.quantile(q) - truth) <= 0.0101 * abs(truth)


def test_the_bound_on_quantiles_rejects_a_coarser_sketch():
    values = torch.cat([part.flatten() for part in pieces()]).double().sort().values
    truth = values[int(0.37 * len(values))].item()
    coarse = math.copysign(2.0 ** round(math.log2(abs(truth))), truth)  # buckets of ratio 2
    assert abs(coarse - truth) > 0.0101 * abs(truth)


def test_what_is_not_finite_is_counted_and_left_out():
    x = torch.tensor([[1.0, torch.nan], [-torch.inf, 3.0]])
    seen = gathered([x])
    assert (seen.numbers, seen.not_finite, seen.largest, seen.mean) == (2, 2, 3.0, 2.0)
    assert abs(seen.quantile(1.0) - 3) <= 0.03


def test_zeros_and_nothing():
    seen = gathered([torch.zeros(3, 4)])
    assert (seen.rms, seen.quantile(0.5), seen.effective_rank, seen.stable_rank) == (0, 0, 0, 0)
    empty = nn.activations.Statistics()
    assert math.isnan(empty.rms)
    assert math.isnan(empty.quantile(0.5))
    with pytest.raises(ValueError, match="nothing was added"):
        empty.singular_values()


def test_of_nothing_finite_no_quantile_is_a_number():
    seen = nn.activations.Statistics()
    seen.add(torch.full((2, 3), torch.nan))
    assert seen.not_finite == 6
    assert all(math.isnan(seen.row()[name]) for name in ("mean", "rms", "quantile_0.01", "quantile_0.5"))


def test_memory_does_not_grow():
    seen = nn.activations.Statistics()

    def held():
        return sum(t.numel() for t in vars(seen).values() if isinstance(t, torch.Tensor))

    seen.add(torch.randn(10, 8))
    first = held()
    for _ in range(20):
        seen.add(torch.randn(1000, 8))
    assert held() == first < 25_000


def test_wide_rows_keep_no_products_and_say_so():
    seen = gathered([torch.randn(4, 20)], gram_limit=10)
    assert "spectral_norm" not in seen.row()
    with pytest.raises(ValueError, match="gram_limit=10"):
        seen.singular_values()


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_impossible_quantiles_are_refused(q):
    with pytest.raises(ValueError, match="from 0 to 1"):
        gathered([torch.ones(2, 2)]).quantile(q)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="had 8 features, got 9"):
        gathered([torch.ones(2, 8), torch.ones(2, 9)])


def test_statistics_of_a_model_are_those_of_what_capture_collects():
    net = nn.LanguageModel(vocabulary=11, width=16, depth=2, heads=2, generator=0)
    x = torch.arange(8).view(2, 4)
    with nn.capture(net, "*") as seen, nn.activations.statistics(net, "*") as counted:
        net(x)
        net(x[:, :2])
    assert list(seen) == list(counted)
    for name, outputs in seen.items():
        assert counted[name].row() == gathered(outputs).row()


@pytest.mark.parametrize("scale", [2.0**-1040, 2.0**-600, 1.0, 2.0**600, 2.0**1019])
def test_sums_hold_at_every_scale(scale):
    """Squares above 1e154 made rms and the spectrum infinite, those below 1e-162 zero; scaling is exact."""
    rows = torch.tensor([[3.0, 0.0], [0.0, 4.0], [-2.0, 1.0]], dtype=torch.float64)
    seen = gathered([scale * row[None] for row in rows])
    close = {"rel": 1e-12, "abs": 0.0}
    assert seen.rms == pytest.approx(scale * math.sqrt(30 / 6), **close)
    assert seen.mean == pytest.approx(scale, **close)
    assert seen.mean_absolute == pytest.approx(scale * 10 / 6, **close)
    truth = torch.linalg.svdvals(rows)
    assert [float(s) / scale for s in seen.singular_values()] == pytest.approx(truth.tolist(), rel=1e-9)
    assert seen.stable_rank == pytest.approx(float(truth.square().sum() / truth[0] ** 2), rel=1e-9)
    share = truth / truth.sum()
    assert seen.effective_rank == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_scales_may_follow_each_other(order):
    """Whichever comes first, the largest decides, as it does among all numbers at once."""
    pieces = [torch.full((2, 2), size, dtype=torch.float64) for size in (0.0, 1e-250, 2.0, 1e200)]
    seen = gathered([pieces[i] for i in order])
    assert seen.rms == pytest.approx(1e200 / 2, rel=1e-12)
    assert seen.spectral_norm == pytest.approx(2e200, rel=1e-9)
    small = gathered([pieces[i] for i in order if i < 2])
    assert small.rms == pytest.approx(1e-250 / math.sqrt(2), rel=1e-12)


def test_quantiles_beyond_float32_are_not_numbers_within_it():
    seen = gathered([torch.tensor([[1e200, -1e200, 1.0, 1e-200]], dtype=torch.float64)])
    assert seen.quantile(0.0) == -math.inf
    assert seen.quantile(1.0) == math.inf
    assert seen.quantile(0.25) == 0
    most = torch.finfo(torch.float32).max
    assert gathered([torch.tensor([[most]])]).quantile(0.5) == pytest.approx(most, rel=0.01)
