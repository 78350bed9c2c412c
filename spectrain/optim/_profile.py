"""How an exponential average weighs the past, and one average as a combination of others."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Tail: TypeAlias = Callable[[float], float]


def profile(half_life: float | int, amounts: Float[np.ndarray, " updates"]) -> Float[np.ndarray, " updates"]:
    """Return the weight of each update in the average; they sum to 1.

    >>> profile(1.0, np.ones(2)).round(6).tolist()
    [0.333333, 0.666667]
    """
    age = np.cumsum(amounts[::-1])[::-1] - amounts
    weights = -np.expm1(-np.log(2) * amounts / half_life) * np.exp2(-age / half_life)
    return np.asarray(weights / weights.sum())


def decayed_profile(
    decay: float | int, amounts: Float[np.ndarray, " updates"], tail: Tail, *, shrink: float | int = 0.0
) -> Float[np.ndarray, " updates"]:
    r"""Return the combination of past weights that a decay phase over the last ``decay`` would have ended at.

    At constant rate eta with theta_t = (1 - shrink) theta_{t-1} - eta u_t, shrink = eta wd, the updates are known from
    the weights, u_t = ((1 - shrink) theta_{t-1} - theta_t) / eta. Had the rate been eta a_t, falling from a = 1 to 0 by
    ``tail``, and the updates the same, the end would be

        sum_t (c_t - (1 - shrink) c_{t+1}) theta_t,    c_t = a_t prod_{s > t} (1 - shrink a_s),

    without decay of the weights a mean with the slopes of the schedule for weights: the last ``decay`` steps alike for
    a linear tail. As in checkpoint merging (WSM, arXiv 2507.17634), here exactly and with weight decay (article 11459).

    >>> decayed_profile(2.0, np.ones(4), lambda x: 1 - x).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    left = np.cumsum(amounts[::-1])[::-1]  # from the start of each update to the end, as WarmupDecay counts
    x = np.clip(1 - left / decay, 0.0, 1.0)
    rates = np.array([tail(float(value)) for value in x])
    after = np.append(np.cumprod((1 - shrink * rates)[::-1])[::-1][1:], 1.0)
    c = rates * after
    weights = c - (1 - shrink) * np.append(c[1:], 0.0)
    weights[0] += after[0] - c[0]  # the history begins with weights, not with an update
    return weights


def combination(
    half_lives: Sequence[float | int], target: Float[np.ndarray, " updates"], amounts: Float[np.ndarray, " updates"]
) -> tuple[list[float], float]:
    """Return coefficients of averages that together weigh the past most like ``target``, and the relative error.

    Least squares over the updates (Karras et al., arXiv 2312.02696, there with power functions) among those with the
    sum of ``target``.

    >>> mix, error = combination([1.0, 4.0], profile(4.0, np.ones(10)), np.ones(10))
    >>> [round(abs(c), 6) for c in mix], error < 1e-12
    ([0.0, 1.0], True)
    """
    basis = np.stack([profile(life, amounts) for life in half_lives], axis=1)
    # The condition on the sum removes one unknown: fit the differences to the last profile.
    differences = basis[:, :-1] - basis[:, -1:]
    found, *_ = np.linalg.lstsq(differences, target - target.sum() * basis[:, -1], rcond=None)
    mix = np.append(found, target.sum() - found.sum())
    return mix.tolist(), float(np.linalg.norm(basis @ mix - target) / np.linalg.norm(target))
