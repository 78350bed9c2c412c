"""Results are looked at: what is beyond the bounds of its schedule is seen, counted and computed again."""

import itertools
import warnings

import pytest
import torch

from spectrain import approx, matfun
from spectrain._arrays import scale
from spectrain.matfun._iteration import recipe
from spectrain.matfun._iteration.bounded import growth, growth_by_gram, kept_within, size_by_distance
from spectrain.matfun._iteration.finish import distance
from spectrain.testing import exact_msign, relative_error, with_singular_values


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (16, 32), (64, 40), (256, 300)], ids=str)
def test_growth_sees_a_value_that_stands_out_and_never_claims_one_that_is_not_there(shape):
    k = min(shape)
    for outlier in (1.0, 2.5, 30.0, 1e6):
        s = torch.ones(k, dtype=torch.float64)
        s[0] = outlier
        Y = with_singular_values(s, *shape, generator=0)[None]
        found = float(growth(Y))
        assert found <= outlier * (1 + 1e-9)
        assert (found > 1.1) == (outlier > 1), outlier
    assert growth(torch.zeros(2, *shape)).eq(0).all()
    broken = torch.ones(1, *shape)
    broken[0, 0, 0] = torch.nan
    assert not growth(broken) <= 1e30


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (16, 32), (64, 40), (256, 300)], ids=str)
def test_the_size_by_the_distance_from_orthonormal_sees_a_value_that_stands_out(shape, dtype):
    """The mean fourth power, beside that of the singular values themselves; one value of k^(1/4) is beyond 1.1."""
    k = min(shape)
    for others, outlier in itertools.product((0.0, 0.7, 1.0), (1.0, 1.05, k**0.25, 30.0, 1e6)):
        s = torch.full((k,), others, dtype=torch.float64)
        s[0] = outlier
        Y = with_singular_values(s, *shape, generator=0)[None].to(dtype)
        found = float(size_by_distance(distance([Y])))
        true = float(s.pow(4).mean() ** 0.25)
        assert found == pytest.approx(true, rel=1e-9 if dtype == torch.float64 else 0.02, abs=0.1), (others, outlier)
        assert (found > 1.1) == (true > 1.1)
    assert size_by_distance(distance([torch.zeros(2, *shape, dtype=dtype)])).lt(1e-3).all()
    broken = torch.ones(1, *shape, dtype=dtype)
    broken[0, 0, 0] = torch.nan
    assert not size_by_distance(distance([broken])) <= 1e30


def test_growth_by_the_gram_matrix_is_that_of_the_product():
    X = torch.randn(12, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R = torch.eye(12, dtype=torch.float64) / 5
    R[3, 3] = 7.0
    true = float(torch.linalg.matrix_norm(R @ X, 2))
    found = float(growth_by_gram(R, X @ X.mT))
    assert 0.8 * true < found <= true * (1 + 1e-9)
    assert kept_within(torch.tensor([0.5, 1.1, 5.0, torch.nan]), 0.0).nan_to_num(-1).tolist() == pytest.approx(
        [1, 1, 0.2, -1]
    )


def blown_up(monkeypatch, which):
    """Let the first iteration of a call go wrong for some matrices, as rounding could; the dtypes of all of them."""
    original, dtypes = recipe._ended, []

    def ended(Ys, *rest):
        dtypes.append(Ys[0].dtype)
        if len(dtypes) == 1:
            for i, value in which.items():
                Ys[0][i] *= value
        return original(Ys, *rest)

    monkeypatch.setattr(recipe, "_ended", ended)
    return dtypes


@pytest.mark.parametrize("options", [{"steps": 6}, {"schedule": approx.sign_schedule(1e-2, steps=6)}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_beyond_bounds_is_computed_again_in_a_wider_dtype(monkeypatch, options, dtype):
    X = torch.randn(4, 12, 30, generator=torch.Generator().manual_seed(0))
    right = matfun.msign(X, **options, dtype=dtype)
    dtypes = blown_up(monkeypatch, {1: 300.0, 3: torch.nan})
    before = matfun.planning.tries()
    with pytest.warns(RuntimeWarning, match="2 of 4 matrices left the bounds"):
        Y = matfun.msign(X, **options, dtype=dtype)
    after = matfun.planning.tries()
    assert (after.matrices - before.matrices, after.second - before.second) == (4, 2)
    assert dtypes[1] == (torch.float32 if dtype == torch.bfloat16 else torch.float64)
    assert torch.equal(Y[[0, 2]], right[[0, 2]])
    assert (relative_error(Y[[1, 3]], exact_msign(X[[1, 3]])) < 0.01).all()


def test_nothing_is_computed_again_that_need_not_be():
    before = matfun.planning.tries()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            for shape in ((3, 3), (16, 32), (200, 170)):
                X = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
                for steps in (1, 2, 5, 9):
                    matfun.msign(X, steps=steps)
            matfun.msign(torch.zeros(2, 3, 4, dtype=dtype), steps=5)
    assert matfun.planning.tries().second == before.second


def test_in_a_graph_it_is_bounded_instead(monkeypatch):
    monkeypatch.setattr(scale, "recording", lambda: True)
    blown_up(monkeypatch, {0: 300.0})
    X = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    Y = matfun.msign(X, steps=5)
    assert torch.linalg.matrix_norm(Y, 2).max() < 1.05
