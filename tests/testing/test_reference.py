"""The oracles are held to closed forms, since everything else is held to them."""

import pytest
import torch

from spectrain import testing


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)], ids=str)
def test_given_singular_values_are_there(shape):
    s = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    X = testing.with_singular_values(s, *shape, generator=0)
    torch.testing.assert_close(torch.linalg.svdvals(X)[:3], s, rtol=1e-13, atol=0)
    assert torch.linalg.svdvals(X)[3:].max() < 1e-15


def test_the_generator_decides():
    a, b = (testing.with_singular_values([1.0, 2.0], 4, 4, generator=1) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, testing.with_singular_values([1.0, 2.0], 4, 4, generator=2))
    with pytest.raises(ValueError, match="at most 2 singular values"):
        testing.with_singular_values([1.0, 1.0, 1.0], 2, 5)
    with pytest.raises(ValueError, match="m >= n"):
        testing.random_orthonormal(2, 3)


def test_msign_of_a_rotation_times_a_positive_matrix():
    """X = Q P with P positive definite has msign Q, by uniqueness of the polar decomposition."""
    Q = testing.random_orthonormal(7, 7, generator=0)
    R = testing.random_orthonormal(7, 7, generator=1)
    P = (R * torch.logspace(0, -3, 7, dtype=torch.float64)) @ R.T
    torch.testing.assert_close(testing.exact_msign(Q @ P), Q, rtol=0, atol=1e-12)
    assert testing.polar_error(Q, Q @ P) < 1e-12


def test_msign_of_a_partial_isometry_is_itself():
    X = testing.with_singular_values([1.0, 1.0], 5, 4, generator=0)
    torch.testing.assert_close(testing.exact_msign(1e-200 * X), X, rtol=0, atol=1e-14)
    torch.testing.assert_close(testing.exact_msign(1e300 * X), X, rtol=0, atol=1e-14)
    batch = torch.stack([X, torch.zeros_like(X), -X])
    torch.testing.assert_close(testing.exact_msign(batch), torch.stack([X, 0 * X, -X]), rtol=0, atol=1e-14)
    assert testing.exact_msign(torch.zeros(0, 3)).shape == (0, 3)


def test_not_a_number_is_an_infinite_error():
    X = torch.eye(3)
    assert testing.relative_error(X * float("nan"), X) == float("inf")


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)], ids=str)
def test_the_zoo_has_what_it_says(shape):
    zoo = testing.zoo(*shape, generator=0)
    k = min(shape)
    assert all(X.shape == shape and X.isfinite().all() for X in zoo.values())
    spectra = {name: torch.linalg.svdvals(X) for name, X in zoo.items()}
    rank = {name: int((s > 1e-13 * s[0]).sum()) for name, s in spectra.items()}
    assert (rank["rank_one"], rank["constant"], rank["rank_deficient"], rank["zero"]) == (1, 1, k // 4, 0)
    for decades in (2, 6, 12):
        s = spectra[f"decades_{decades}"]
        torch.testing.assert_close(s[0] / s[-1], torch.tensor(10.0**decades).to(s), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        spectra["permutation"], torch.ones(k).double(), rtol=0, atol=0 if shape[0] <= shape[1] else 1
    )
    assert rank["one_hot"] <= max(1, shape[0] // 8)


@pytest.mark.parametrize("name", testing.WRONG_MSIGN)
def test_every_wrong_answer_is_wrong_and_the_right_one_is_right(name):
    matrices = testing.zoo(12, 20, generator=0).values()
    assert max(testing.polar_error(testing.WRONG_MSIGN[name](X), X) for X in matrices) > 0.09
    assert max(testing.polar_error(testing.exact_msign(X), X) for X in matrices) == 0
