"""A composition of polynomials with its interval, certified error and price."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from spectrain.approx._polynomial import Number, Polynomial, print_terms

Interval = tuple[float, float]

DTYPES = ("float64", "float32", "tfloat32", "float16", "bfloat16")


@dataclass(frozen=True)
class Schedule:
    """``x -> p_T(... p_2(p_1(x)))``: polynomials applied one after another.

    ``error`` bounds ``|result - target|`` on ``interval`` in exact arithmetic, for the coefficients as they stand;
    it is proven by ball arithmetic. ``intervals[t]`` is where the values stand before step t, ``intervals[-1]`` the
    image of the whole. ``products`` is the price (`Cost`), ``dtype`` the arithmetic it was designed for, and
    ``reached`` the relative Frobenius error that its model of roundoff expects there, 0 without one: an expectation,
    which may be below ``error``, a proven maximum. Calling it takes floats,
    arrays and tensors, entry by entry.

    >>> from spectrain.approx import sign_schedule
    >>> schedule = sign_schedule(0.1, steps=3)
    >>> abs(schedule(0.1) - 1) <= schedule.error < 1.6e-4
    True
    >>> Schedule.from_json(schedule.to_json()) == schedule
    True
    """

    polynomials: tuple[Polynomial, ...]
    error: float
    products: float
    interval: Interval
    dtype: str = "float64"
    intervals: tuple[Interval, ...] = field(default=())
    target: str = "sign"
    reached: float = 0.0

    def __call__(self, x: Any) -> Any:
        for p in self.polynomials:
            x = p(x)
        return x

    def __len__(self) -> int:
        return len(self.polynomials)

    @property
    def degrees(self) -> tuple[int, ...]:
        """The degree of each step."""
        return tuple(p.degree for p in self.polynomials)

    def __str__(self) -> str:
        low, high = self.interval
        head = (
            f"{self.target} on [{low:g}, {high:g}] for {self.dtype}: {len(self)} steps, {self.products:g} products, "
            f"error <= {self.error:.4g} (proven, exact arithmetic)"
        )
        if self.reached:
            head += f", {self.reached:.3g} expected in {self.dtype}"
        lines = [head]
        for p in self.polynomials:
            lines.append("  " + print_terms(p.powers, [f"{c:.6g}" for c in p.coefficients]))
        return "\n".join(lines)

    def to_json(self) -> str:
        """All fields as JSON, floats to the last bit."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """The schedule that `to_json` wrote. Raises ValueError for anything else."""
        try:
            data = json.loads(text)
            steps = tuple(Polynomial(tuple(p["powers"]), tuple(p["coefficients"])) for p in data["polynomials"])
            pairs = tuple((float(a), float(b)) for a, b in data["intervals"])
            low, high = data["interval"]
            return cls(
                steps, float(data["error"]), float(data["products"]), (float(low), float(high)), data["dtype"], pairs,
                data["target"], float(data["reached"]),
            )  # fmt: skip
        except (KeyError, TypeError, json.JSONDecodeError) as problem:
            raise ValueError(f"Schedule.from_json: not a schedule written by to_json ({problem!r}).") from problem


def images(steps: Sequence[Polynomial], interval: Interval) -> tuple[Interval, ...]:
    """Where the values stand before each step and after the last one, proven by balls (outward rounded).

    The image of an interval under a continuous function is an interval, so step by step nothing is lost.
    """
    from flint import arb_poly

    from spectrain.approx._precision import ball, float_down, float_up, precise
    from spectrain.approx._range import UnprovableError, polynomial_range

    result = [interval]
    with precise(160):
        for p in steps:
            coefficients: list[Any] = [0] * (p.degree + 1)
            for n, c in zip(p.powers, p.coefficients, strict=True):
                coefficients[n] = ball(c)
            low, high = map(ball, result[-1])
            try:
                low_bound, _, _, high_bound = polynomial_range(arb_poly(coefficients), low, high)
                result.append((float_down(low_bound), float_up(high_bound)))
            except UnprovableError:
                # Overflow: a diverging recipe has no finite image.
                result.append((-math.inf, math.inf))
                break
    return tuple(result)


def error_of_image(image: Interval, target: float = 1.0) -> float:
    """The largest distance from the target in the image, rounded up."""
    worst = (
        max(Fraction(target) - Fraction(image[0]), Fraction(image[1]) - Fraction(target))
        if all(map(math.isfinite, image))
        else math.inf
    )
    value = float(worst)
    return value if value == math.inf or Fraction(value) >= worst else math.nextafter(value, math.inf)


def certified(
    steps: Sequence[Polynomial], interval: tuple[Number, Number], *, products: float, dtype: str = "float64",
    target: str = "sign", reached: float = 0.0,
) -> Schedule:  # fmt: skip
    """The schedule of these steps with its proven error for the constant 1 on the interval."""
    low, high = float(interval[0]), float(interval[1])
    chain = images(steps, (low, high))
    error = error_of_image(chain[-1])
    return Schedule(tuple(steps), error, products, (low, high), dtype, chain, target, max(reached, 0.0))
