"""Items one after the other, in runs of a bounded size. Standard library only."""

from collections.abc import Iterable, Iterator


def runs(sizes: Iterable[int], most: int) -> Iterator[slice]:
    """Yield slices that together hold every item: as many as ``most`` has room for, or one that is larger.

    >>> list(runs([3, 2, 9, 1], most=5))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start, count, held = 0, 0, 0
    for size in sizes:
        if count > start and held + size > most:
            yield slice(start, count)
            start, held = count, 0
        count += 1
        held += size
    if count:
        yield slice(start, count)
