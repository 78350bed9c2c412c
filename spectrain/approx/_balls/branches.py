"""Comparisons that balls do not decide: every answer is tried."""

from flint import arb


class UndecidedError(Exception):
    """A comparison whose answer depends on the point inside the ball."""


class NotFollowedError(Exception):
    """The callable did something that balls do not know."""


class Branches:
    """Answers to undecided comparisons, one run of the callable after another, until all were given.

    Whatever a comparison answers at a point, one of the runs answered the same, so the union of all runs holds.
    """

    def __init__(self, most: int = 5) -> None:
        self.forced: list[bool] = []
        self.used = 0
        self.most = most
        self.signs: dict[str, frozenset[int]] = {}

    def ask(self) -> bool:
        if self.used == len(self.forced):
            if len(self.forced) == self.most:
                raise NotFollowedError("too many undecided comparisons at one point")
            self.forced.append(True)
        self.used += 1
        return self.forced[self.used - 1]

    def possible(self, gap: arb, signs: frozenset[int]) -> frozenset[int]:
        """The signs that earlier answers about the same difference leave."""
        return self.signs.get(repr(gap), signs)

    def note(self, gap: arb, signs: frozenset[int]) -> None:
        """Remember an answer, so that nothing is neither above nor below nor equal."""
        self.signs[repr(gap)] = signs

    def another(self) -> bool:
        """Move on to the next combination of answers; False when all have been given."""
        del self.forced[self.used :]
        self.signs.clear()
        while self.forced and not self.forced[-1]:
            self.forced.pop()
        if not self.forced:
            return False
        self.forced[-1] = False
        self.used = 0
        return True
