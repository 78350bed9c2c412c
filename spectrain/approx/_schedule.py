"""A composition of polynomials with its interval and certified error, and its price in matrix products."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any

from spectrain._files.read import parse_json
from spectrain._files.values import number, row, table, whole
from spectrain.approx._polynomial import Number, Polynomial, print_terms

Interval = tuple[float, float]
DTYPES = ("float64", "float32", "tfloat32", "float16", "bfloat16")
_TARGETS = ("sign", "root")
# What no schedule that is made here comes near; more would only take long to prove.
_MOST_POLYNOMIALS, _MOST_TERMS, _HIGHEST_POWER = 1000, 64, 2**31


def products_of_polynomial(degree: int) -> int:
    """Products that form q(A), q of this degree and A at hand (Paterson and Stockmeyer, SIAM J. Comput. 1973).

    >>> [products_of_polynomial(k) for k in (1, 2, 3, 4, 6, 9)]
    [0, 1, 2, 2, 3, 4]
    """
    return min((s - 1) + -(-degree // s) - 1 for s in range(1, degree + 1))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The price of applying odd polynomials to an m x n matrix X, n <= m, in products of two n x n matrices.

    ``aspect`` is m / n: a product with X on one side costs that much. ``symmetric`` counts products with a symmetric
    result at half price. ``gram`` iterates on X^T X and multiplies X at the end (and once more when restarting
    after the second step, which half precision needs): 2 flops n^3 times the price are the flops.

    >>> cost = Cost()
    >>> [cost.step(d) for d in (3, 5, 7, 9, 13)]
    [2.0, 3.0, 4.0, 4.0, 5.0]
    >>> [Cost(symmetric=True).step(d) for d in (3, 5, 9, 13)]
    [1.5, 2.0, 2.5, 3.0]
    >>> a = 4.0                                     # five quintics: (20 a + 10) n^3 and (8 a + 28) n^3 flops
    >>> 2 * Cost(aspect=a).total([5] * 5) == 20 * a + 10
    True
    >>> 2 * Cost(aspect=a, gram=True).total([5] * 5) == 8 * a + 28
    True
    """

    gram: bool = False
    symmetric: bool = False
    aspect: Number = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.aspect < float("inf"):
            raise ValueError(
                f"aspect is the longer side over the shorter one, at least 1, got {self.aspect}. "
                "Transposing the matrix changes nothing."
            )

    @property
    def _half(self) -> float:
        return 0.5 if self.symmetric else 1.0

    def step(self, degree: int) -> float:
        """Price of one odd step of this degree (in Gram form: of one more)."""
        inner = self._half * products_of_polynomial((degree - 1) // 2)
        # Gram form: q(A), then Q <- Q q and the two products of A <- q A q. Plain form: X X^T, q(A), q X.
        return inner + 3 * self._half if self.gram else inner + (1 + self._half) * self.aspect

    def total(self, degrees: Sequence[int]) -> float:
        """Price of the whole schedule."""
        return sum(map(self.step, degrees)) + self.fixed(len(degrees))

    def fixed(self, steps: int) -> float:
        """What Gram form pays once and saves at its first and last step; plain form: nothing."""
        if not self.gram or not steps:
            return 0.0
        passes = 2 if steps > 2 else 1
        return passes * ((1 + self._half) * self.aspect - 3 * self._half)


@dataclass(frozen=True)
class Schedule:
    """``x -> p_T(... p_2(p_1(x)))``: polynomials applied one after another.

    ``error`` bounds ``|result - target|`` on ``interval`` in exact arithmetic, for the coefficients as they stand;
    it is proven by ball arithmetic. ``intervals[t]`` is where the values stand before step t, ``intervals[-1]`` the
    image of the whole. ``products`` is the price (`Cost`), ``dtype`` the arithmetic it was designed for, and
    ``reached`` the error that its model of roundoff predicts there, a statistical statement (0: none was made). It may
    be below ``error``: it is a norm over whole spectra, and ``error`` is the worst value. Calling it takes floats,
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
        """The schedule that `to_json` wrote, proven again: its polynomials map ``interval`` as it says.

        Raises ValueError for anything else, also where ``error`` or one of ``intervals`` is narrower than what balls
        prove of the coefficients as they stand (a wider one is still a bound).
        """
        try:
            found = cls(**_fields(parse_json(text, constants=("Infinity", "-Infinity"))))
            _check_claims(found)
        except ValueError as problem:
            raise ValueError(f"Schedule.from_json: not a schedule written by to_json ({problem}).") from problem
        return found


def _fields(data: Any) -> dict[str, Any]:
    """The arguments of `Schedule` that the JSON holds. Raises ValueError for what is none."""
    given = table(data, {f.name for f in fields(Schedule)})
    steps, pairs = row(given["polynomials"], "polynomials"), row(given["intervals"], "intervals")
    if not 1 <= len(steps) <= _MOST_POLYNOMIALS or len(pairs) > len(steps) + 1:
        raise ValueError(f"got {len(steps)} polynomials and {len(pairs)} intervals")
    if given["dtype"] not in DTYPES or given["target"] not in _TARGETS:
        raise ValueError(
            f"dtype must be one of {', '.join(DTYPES)} and target one of {', '.join(_TARGETS)}, got "
            f"{given['dtype']!r} and {given['target']!r}"
        )
    return {
        "polynomials": tuple(map(_polynomial, steps)),
        "error": number(given["error"], "error", least=0, finite=False),
        "products": number(given["products"], "products", least=0),
        "interval": _pair(given["interval"], finite=True),
        "dtype": given["dtype"],
        "intervals": tuple(_pair(pair, finite=False) for pair in pairs),
        "target": given["target"],
        "reached": number(given["reached"], "reached", least=0, finite=False),
    }


def _polynomial(data: Any) -> Polynomial:
    given = table(data, {f.name for f in fields(Polynomial)})
    powers = tuple(whole(n, "a power", least=0) for n in row(given["powers"], "powers"))
    if len(powers) > _MOST_TERMS or max(powers, default=0) > _HIGHEST_POWER:
        raise ValueError(f"a polynomial has at most {_MOST_TERMS} terms and powers up to {_HIGHEST_POWER}")
    return Polynomial(powers, tuple(number(c, "a coefficient") for c in row(given["coefficients"], "coefficients")))


def _pair(data: Any, *, finite: bool) -> Interval:
    ends = row(data, "an interval")
    if len(ends) != 2:
        raise ValueError(f"an interval has two ends, got {len(ends)}")
    low, high = (number(end, "an end of an interval", finite=finite) for end in ends)
    if not low <= high:
        raise ValueError(f"an interval must not be reversed, got [{low}, {high}]")
    return low, high


def _check_claims(schedule: Schedule) -> None:
    """Raise ValueError unless the error and the intervals of a schedule cover what is proven of it."""
    proven = images(schedule.polynomials, schedule.interval)
    error = error_of_image(proven[-1])
    covered = (a <= c and d <= b for (a, b), (c, d) in zip(schedule.intervals, proven, strict=False))
    if schedule.error < error or len(schedule.intervals) not in (0, len(proven)) or not all(covered):
        raise ValueError(
            f"it says error <= {schedule.error:.17g}, but for these coefficients error <= {error:.17g} is proven and "
            f"the intervals are {proven}; coefficients that were changed need a bound of their own: make the schedule "
            "anew with sign_schedule or root_schedule"
        )


def images(steps: Sequence[Polynomial], interval: Interval) -> tuple[Interval, ...]:
    """Where the values stand before each step and after the last one, proven by balls (outward rounded).

    The image of an interval under a continuous function is an interval, so step by step nothing is lost. After
    (-inf, inf), the image that a diverging recipe has, no more follow.
    """
    from spectrain.approx._balls.image import image

    result = [interval]
    for p in steps:
        result.append(image(p, result[-1]))
        if result[-1][1] == math.inf:
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
