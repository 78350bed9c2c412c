"""How an exponential average weighs the past, and one average as a combination of others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def profile(half_life: float | int, amounts: Float[np.ndarray, " updates"]) -> Float[np.ndarray, " updates"]:
    """Return the weight of each update in the average; they sum to 1.

    >>> profile(1.0, np.ones(2)).round(6).tolist()
    [0.333333, 0.666667]
    """
    age = np.cumsum(amounts[::-1])[::-1] - amounts
    weights = -np.expm1(-np.log(2) * amounts / half_life) * np.exp2(-age / half_life)
    return np.asarray(weights / weights.sum())


def combination(
    half_lives: Sequence[float | int], wanted: float | int, amounts: Float[np.ndarray, " updates"]
) -> tuple[list[float], float]:
    """Return coefficients, summing to 1, of averages that together weigh the past most like another average.

    Least squares over the updates (Karras et al., arXiv 2312.02696, there with power functions), and its
    relative error. Raises ValueError without updates or for a half-life that is not positive.

    >>> mix, error = combination([1.0, 4.0], 4.0, np.ones(10))
    >>> [round(abs(c), 6) for c in mix], error < 1e-12
    ([0.0, 1.0], True)
    """
    if not len(amounts) or not 0 < wanted < float("inf"):
        raise ValueError(f"WeightAverage: needs an update and a positive half-life, got {wanted}.")
    basis = np.stack([profile(life, amounts) for life in half_lives], axis=1)
    target = profile(wanted, amounts)
    # The condition sum = 1 removes one unknown: fit the differences to the last profile.
    differences = basis[:, :-1] - basis[:, -1:]
    found, *_ = np.linalg.lstsq(differences, target - basis[:, -1], rcond=None)
    mix = np.append(found, 1 - found.sum())
    return mix.tolist(), float(np.linalg.norm(basis @ mix - target) / np.linalg.norm(target))
