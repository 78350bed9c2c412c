"""One polynomial of a schedule as its file tells it: terms, values, error, alternation."""

import numpy as np

from spectrain.report._reading.files import Row, number

SAMPLES = 400


def terms(step: Row) -> list[tuple[int, float]]:
    """The (power, coefficient) pairs of a step, none when the file does not hold them."""
    powers, coefficients = step.get("powers"), step.get("coefficients")
    if not isinstance(powers, list) or not isinstance(coefficients, list) or len(powers) != len(coefficients):
        return []
    found = [(number(p), number(c)) for p, c in zip(powers, coefficients, strict=True)]
    return [(int(p), c) for p, c in found if p is not None and c is not None and p >= 0]


def evaluate(step: Row, x: np.ndarray) -> np.ndarray:
    """The value of a step's polynomial; infinities where it overflows.

    >>> evaluate({"powers": [1, 3], "coefficients": [1.5, -0.5]}, np.array([1.0, 2.0])).tolist()
    [1.0, -1.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sum([c * x**p for p, c in terms(step)], axis=0)


def interval_of(row: Row) -> tuple[float, float] | None:
    """The interval of a schedule or step, when it holds two numbers in order."""
    ends = row.get("interval")
    found = [number(x) for x in ends] if isinstance(ends, list) and len(ends) == 2 else []
    return (
        (found[0], found[1])
        if found and found[0] is not None and found[1] is not None and found[0] < found[1]
        else None
    )


def alternation(step: Row) -> tuple[np.ndarray, np.ndarray]:
    """The step's reference points inside numbers, and p(x) - 1 at each, computed from the coefficients."""
    listed = step.get("reference")
    x = np.array(
        sorted(v for v in map(number, listed) if v is not None) if isinstance(listed, list) else [],
        dtype=float,
    )
    return x, evaluate(step, x) - 1.0


def alternates(errors: np.ndarray, *, slack: float = 0.01) -> bool:
    """Whether errors alternate in sign and agree in size up to ``slack``: Chebyshev's mark of the best.

    >>> alternates(np.array([-0.5, 0.5, -0.5])), alternates(np.array([-0.5, 0.5, 0.5]))
    (True, False)
    """
    sizes = np.abs(errors)
    one_size = bool(len(errors)) and bool(sizes.max() <= (1 + slack) * sizes.min())
    return one_size and bool(np.all(errors[1:] * errors[:-1] < 0))


def error_curve(step: Row) -> tuple[list[float], list[float]]:
    """The step's sampled error as the file holds it, else computed from the coefficients."""
    curve = step.get("curve")
    stored = curve if isinstance(curve, dict) else {}
    x, y = ([number(v) for v in part] if isinstance(part := stored.get(key), list) else [] for key in ("x", "error"))
    known = [(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None]
    interval = interval_of(step)
    if not known and interval:
        grid = np.linspace(*interval, SAMPLES)
        known = list(zip(grid.tolist(), (evaluate(step, grid) - 1.0).tolist(), strict=True))
    return [a for a, _ in known], [b for _, b in known]
