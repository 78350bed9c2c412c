"""torch's own orthogonalisation before the checks of test_complaints.py: it passes none of these, msign all.

When a new torch passes one, that check has done its work here.
"""

import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

from spectrain import matfun
from spectrain.testing import polar_error, with_singular_values

JORDAN = (3.4445, -4.7750, 2.0315)


def torchs(X):
    return _zeropower_via_newtonschulz(X, JORDAN, 5, 1e-7)


def gaussian(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def right_at(scale):
    return lambda function: bool(polar_error(function(scale * gaussian(32, 80)), gaussian(32, 80)) < 0.05)


def leaves_its_input(function):
    X = gaussian(16, 24, dtype=torch.bfloat16)
    before = X.clone()
    function(X)
    return torch.equal(X, before)


def singular_values_are_one(function):
    return bool((torch.linalg.svdvals(function(gaussian(64, 160)).double()) - 1).abs().max() < 0.02)


def keeps_the_dtype(function):
    return function(gaussian(8, 12)).dtype == torch.float32


def takes_stacked_matrices(function):
    try:
        return function(gaussian(3, 8, 12)).shape == (3, 8, 12)
    except ValueError:
        return False


def power_of_two_changes_nothing(function):
    return torch.equal(function(gaussian(8, 12)), function(2.0**-100 * gaussian(8, 12)))


def right_for_a_bad_condition(function):
    X = with_singular_values(torch.logspace(0, -4, 32), 32, 64, generator=0)
    return bool(polar_error(function(X.float()), X) < 0.02)


def nan_is_told(function):
    X = gaussian(4, 6)
    X[1, 1] = torch.nan
    try:
        function(X)
    except ValueError:
        return True
    return False


CHECKS = {
    "Emerging-Optimizers #229: a gradient of 1e-30": right_at(1e-30),
    "Emerging-Optimizers #229: one of 1e25": right_at(1e25),
    "the same bits for a power of two": power_of_two_changes_nothing,
    "pytorch #194664: the input is left alone": leaves_its_input,
    "Moonlight #22: singular values are 1": singular_values_are_one,
    "pytorch #160213: float32 in, float32 out": keeps_the_dtype,
    "pytorch #190597: stacked matrices": takes_stacked_matrices,
    "Emerging-Optimizers #45: ill-conditioned gradients": right_for_a_bad_condition,
    "NaN is told": nan_is_told,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_msign_passes_and_torchs_does_not(check):
    assert check(lambda X: matfun.msign(X, tol=1e-2))
    assert not check(torchs)
