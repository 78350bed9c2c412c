"""Frequencies of rotary positions changed after training, so that a model reads longer text than it was trained on."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from spectrain.nn._numbers import check_positive


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """All frequencies divided by ``factor``, as if positions were so much closer (arXiv 2306.15595)."""

    name: ClassVar[str] = "linear"
    magnitude: ClassVar[float | int] = 1.0
    factor: float | int

    def __post_init__(self) -> None:
        check_positive("rotary scaling linear", factor=self.factor)

    def change(self, frequencies: Tensor, *, base: float | int) -> Tensor:
        """f / factor."""
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Low frequencies divided by ``factor``, high ones kept, those between mixed (Llama 3.1, arXiv 2407.21783).

    A frequency turns ``r = length f / (2 pi)`` times within the ``length`` of training. Those of fewer than ``low``
    turns are divided, those of more than ``high`` kept; between, the share kept is ``(r - low) / (high - low)``.
    """

    name: ClassVar[str] = "llama3"
    magnitude: ClassVar[float | int] = 1.0
    factor: float | int
    low: float | int
    high: float | int
    length: float | int

    def __post_init__(self) -> None:
        check_positive("rotary scaling llama3", **vars(self))
        if self.low >= self.high:
            raise ValueError(f"rotary scaling llama3: low must be below high, got {self.low} and {self.high}.")

    def change(self, frequencies: Tensor, *, base: float | int) -> Tensor:
        """The mixture of f and f / factor."""
        turns = self.length * frequencies / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): as Llama3, with a ramp over the index of a frequency, and larger logits.

    The pair ``d log(length / (2 pi r)) / (2 log base)`` turns r times within ``length``. The ramp goes from the one of
    ``fast`` turns, from which on less is kept, to that of ``slow``; with ``whole`` its ends are rounded outwards to
    whole numbers. ``magnitude`` multiplies rotated queries and keys; published is ``0.1 log(factor) + 1``.
    """

    name: ClassVar[str] = "yarn"
    factor: float | int
    length: float | int
    fast: float | int = 32.0
    slow: float | int = 1.0
    magnitude: float | int = 1.0
    whole: bool = True

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if name != "whole"}
        check_positive("rotary scaling yarn", **numbers)
        if self.slow > self.fast:
            raise ValueError(f"rotary scaling yarn: slow must be at most fast, got {self.slow} and {self.fast}.")

    def change(self, frequencies: Tensor, *, base: float | int) -> Tensor:
        """The mixture of f and f / factor."""
        size = 2 * len(frequencies)
        first, last = self._pair(self.fast, size, base), self._pair(self.slow, size, base)
        if self.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        if first == last:
            last += 1e-3  # as published: a step
        index = frequencies.new_ones(len(frequencies)).cumsum(0) - 1
        kept = 1 - ((index - first) / (last - first)).clamp(0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor

    def _pair(self, turns: float | int, size: int, base: float | int) -> float | int:
        return size * math.log(self.length / (turns * 2 * math.pi)) / (2 * math.log(base))


Scaling: TypeAlias = LinearScaling | Llama3Scaling | YarnScaling
"""What becomes of the frequencies of :class:`Rotary`, by ``change``; rotated coordinates grow by ``magnitude``."""
_KINDS: dict[str, type[Scaling]] = {kind.name: kind for kind in (LinearScaling, Llama3Scaling, YarnScaling)}
NAMES = tuple(_KINDS)


def read_scaling(words: Sequence[str]) -> Scaling | None:
    """The scaling that ``llama3 factor=8 low=1 high=4 length=8192`` says; None for no words.

    Raises ``ValueError`` for an unknown name, for a number that is missing, too many or cannot be.

    >>> read_scaling(["linear", "factor=2"])
    LinearScaling(factor=2.0)
    """
    if not words:
        return None
    name, *rest = words
    if name not in _KINDS:
        raise ValueError(f"rotary scaling must be one of {', '.join(NAMES)}, got {name!r}.")
    fields = {field.name: field for field in dataclasses.fields(_KINDS[name])}
    given = dict(word.partition("=")[::2] for word in rest)
    needed = {each for each, field in fields.items() if field.default is dataclasses.MISSING}
    if not needed <= {*given} <= {*fields} or len(given) < len(rest):
        said = " ".join(f"{each}=..." for each in fields if each in needed)
        raise ValueError(f"rotary scaling {name} is spelled '{name} {said}', got {' '.join(words)!r}.")
    try:
        numbers: dict[str, Any] = {each: float(value) for each, value in given.items()}
    except ValueError:
        raise ValueError(f"rotary scaling takes numbers, got {' '.join(words)!r}.") from None
    if "whole" in numbers:
        numbers["whole"] = bool(numbers["whole"])
    return _KINDS[name](**numbers)


def write_scaling(scaling: Scaling | None) -> tuple[str, ...]:
    """The words that :func:`read_scaling` reads."""
    if scaling is None:
        return ()
    return (scaling.name, *(f"{name}={float(value)!r}" for name, value in vars(scaling).items()))
