"""The size of the weights, against the covariance of the weighted sum that they are."""

import math

import numpy as np
import pytest

from spectrain.optim.averaging import averaging_coefficients, weight_rms


def by_covariance(lr, wd, r, momentum, steps):
    """sqrt(c^T C c) with C_ij = r^2 momentum^|i-j|, for a run long enough to forget its start."""
    c = averaging_coefficients([lr] * steps, wd).coefficients
    later, total = 0.0, 0.0
    for value in c:
        total += value * value + 2 * value * momentum * later
        later = momentum * later + value
    return r * math.sqrt(total)


@pytest.mark.parametrize(("lr", "wd"), [(0.01, 0.5), (0.1, 1.0), (0.5, 1.5)])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_is_the_covariance_of_the_sum(lr, wd, momentum):
    truth = by_covariance(lr, wd, 0.2, momentum, 20_000)
    assert math.isclose(weight_rms(lr, wd, momentum=momentum), truth, rel_tol=1e-9)


WRONG = {
    "momentum ignored": lambda lr, wd, b: 0.2 * math.sqrt(lr / (2 * wd)),
    "first order": lambda lr, wd, b: 0.2 * math.sqrt(lr / (2 * wd) * (1 + b) / (1 - b)),
    "quick estimate": lambda lr, wd, b: 0.2 * math.sqrt((1 - b) / (1 + b) * lr / (2 * wd)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_other_estimates(wrong):
    assert abs(wrong(0.1, 1.0, 0.9) / by_covariance(0.1, 1.0, 0.2, 0.9, 20_000) - 1) > 0.05


def test_random_gradients_get_there():
    rng = np.random.default_rng(0)
    lr, wd, beta = 0.05, 0.4, 0.8
    theta, m = np.zeros(20_000), np.zeros(20_000)
    for _ in range(600):
        m = beta * m + (1 - beta) * rng.standard_normal(20_000)
        theta = theta - lr * (m + wd * theta)
    r = math.sqrt((1 - beta) / (1 + beta))
    assert math.isclose(math.sqrt((theta**2).mean()), weight_rms(lr, wd, update_rms=r, momentum=beta), rel_tol=0.02)


@pytest.mark.parametrize(("lr", "wd", "momentum"), [(0.0, 0.1, 0.0), (1.0, 1.0, 0.0), (0.1, 0.0, 0.0), (0.1, 0.1, 1.0)])
def test_no_balance_is_an_error(lr, wd, momentum):
    with pytest.raises(ValueError, match="weight_rms"):
        weight_rms(lr, wd, momentum=momentum)
