"""A polynomial as a value: the only form in which coefficients travel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Number = float | int


@dataclass(frozen=True)
class Polynomial:
    """``p(x) = sum of coefficients[j] * x**powers[j]``, frozen, hashable and callable.

    ``powers`` rise strictly from 0 or more. Calling it takes a float, a NumPy array, a torch tensor
    or anything else that multiplies and adds with floats, entry by entry: Horner's rule with ``*`` and
    ``+`` alone, so nothing is imported and the dtype of an array stays. Raises ValueError for powers that
    are negative, repeated or falling, and where there are not as many coefficients as powers.

    >>> p = Polynomial(powers=(1, 3), coefficients=(1.5, -0.5))     # the cubic Newton-Schulz step
    >>> p(1.0), p(0.5)
    (1.0, 0.6875)
    >>> print(p)
    1.5 x - 0.5 x^3
    """

    powers: tuple[int, ...]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.powers) != len(self.coefficients) or not self.powers:
            raise ValueError(
                f"Polynomial: as many coefficients as powers are needed and at least one, got {len(self.powers)} "
                f"powers and {len(self.coefficients)} coefficients."
            )
        check_powers(self.powers)

    @classmethod
    def odd(cls, *coefficients: float) -> "Polynomial":
        """``c1 x + c3 x^3 + c5 x^5 + ...`` from ``c1, c3, c5, ...``.

        >>> print(Polynomial.odd(15 / 8, -10 / 8, 3 / 8))
        1.875 x - 1.25 x^3 + 0.375 x^5
        """
        return cls(tuple(range(1, 2 * len(coefficients), 2)), tuple(float(c) for c in coefficients))

    @property
    def degree(self) -> int:
        """The highest power."""
        return self.powers[-1]

    def __call__(self, x: Any) -> Any:
        if self.powers == (0,):
            return x * 0.0 + self.coefficients[0]
        steps = (*(hi - lo for lo, hi in zip(self.powers, self.powers[1:], strict=False)), self.powers[0])
        jumps = {n: _power(x, n) for n in set(steps) if n}
        # Going down the powers: the product with the jump to the next power, then its coefficient.
        value = self.coefficients[-1]
        for n, c in zip(reversed(steps[:-1]), reversed(self.coefficients[:-1]), strict=True):
            value = value * jumps[n] + c
        return value * jumps[self.powers[0]] if self.powers[0] else value

    def derivative(self) -> "Polynomial":
        """``p'``.

        >>> print(Polynomial((1, 3), (1.5, -0.5)).derivative())
        1.5 - 1.5 x^2
        """
        terms = [(n - 1, n * c) for n, c in zip(self.powers, self.coefficients, strict=True) if n]
        powers, coefficients = zip(*terms, strict=True) if terms else ((0,), (0.0,))
        return Polynomial(powers, coefficients)

    def scaled(self, factor: Number) -> "Polynomial":
        """``q(x) = p(factor * x)``.

        >>> print(Polynomial((1, 3), (1.5, -0.5)).scaled(2))
        3.0 x - 4.0 x^3
        """
        pairs = zip(self.powers, self.coefficients, strict=True)
        return Polynomial(self.powers, tuple([_times_power(c, factor, n) for n, c in pairs]))

    def __str__(self) -> str:
        return print_terms(self.powers, [repr(c) for c in self.coefficients])


def _times_power(c: Number, factor: Number, n: int) -> float:
    """c * factor^n, rounded once. In whole numbers and powers of two, a tenth of the time that fractions take."""
    (a, b), (p, q) = c.as_integer_ratio(), factor.as_integer_ratio()
    whole, down = a * p**n, (b.bit_length() - 1) + n * (q.bit_length() - 1)
    spare = max(whole.bit_length() - 64, 0)
    if not -1000 < whole.bit_length() - down < 1000:
        return float(Fraction(c) * Fraction(factor) ** n)
    # 64 bits and one that says whether there are more: they round to a double as the whole number does.
    lead = abs(whole) >> spare
    size = math.ldexp(lead | (lead << spare != abs(whole)), spare - down)
    return -size if whole < 0 else size


def check_powers(powers: Sequence[Any]) -> None:
    """Raise ValueError unless the powers are whole, rising, without repetition and from 0 up."""
    if any(not (isinstance(n, int) or float(n).is_integer()) or n < 0 for n in powers):
        raise ValueError(f"powers must be whole numbers from 0 up, got {tuple(powers)}.")
    if len(set(powers)) < len(powers):
        raise ValueError(f"duplicate powers in {tuple(powers)}: name each power once.")
    if list(powers) != sorted(powers):
        raise ValueError(f"powers must rise, got {tuple(powers)}: use {tuple(sorted(powers))}.")


def print_terms(powers: Sequence[int], coefficients: Sequence[str]) -> str:
    """``c0 + c1 x - c2 x^2`` from the printed coefficients."""
    names = [{0: "", 1: " x"}.get(n, f" x^{n}") for n in powers]
    text = " + ".join(c + name for c, name in zip(coefficients, names, strict=True))
    return text.replace("+ -", "- ")


def _power(x: Any, n: int) -> Any:
    """``x**n`` for n >= 1 by squaring, with products alone."""
    if n == 1:
        return x
    half = _power(x, n // 2)
    return half * half if n % 2 == 0 else half * half * x
