"""Long curves made short and rough ones smooth, without hiding what happened."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

MOST_POINTS = 1200


def thin(y: Sequence[float | None]) -> list[int]:
    """Indices of at most about ``MOST_POINTS`` points that keep the least and the largest of every stretch.

    A spike of one step stays visible, which plain subsampling would hide.

    >>> y = [0.0] * 100_000; y[54_321] = 7.0
    >>> kept = thin(y)
    >>> len(kept) <= MOST_POINTS + 2, 54_321 in kept
    (True, True)
    """
    count = len(y)
    if count <= MOST_POINTS:
        return list(range(count))
    edges = [round(i * count / (MOST_POINTS // 2)) for i in range(MOST_POINTS // 2 + 1)]
    kept = {0, count - 1}
    for start, stop in pairwise(edges):
        there = [i for i in range(start, stop) if y[i] is not None]
        if there:
            kept |= {min(there, key=lambda i: y[i] or 0.0), max(there, key=lambda i: y[i] or 0.0)}
    return sorted(kept)


def running_mean(y: Sequence[float | None]) -> list[float | None]:
    """Mean of the last twentieth of the values so far: short where a curve falls fast, long where it is flat.

    >>> running_mean([1.0, 3.0, None, 5.0]), running_mean([float(i % 2) for i in range(400)])[-1]
    ([1.0, 3.0, None, 5.0], 0.5)
    """
    sums = [0.0, *accumulate(v or 0.0 for v in y)]
    counts = [0, *accumulate(v is not None for v in y)]
    spans = [(i - i // 20, i + 1) for i in range(len(y))]
    return [(sums[b] - sums[a]) / (counts[b] - counts[a]) if counts[b] > counts[a] else None for a, b in spans]
