"""What a schedule for the sign is asked for: one object, which is also the key of its design in tables and cache."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from spectrain.approx._polynomial import Number
from spectrain.approx._schedule import DTYPES, Cost, Interval

MOST_STEPS = 60

_DEFAULT_TOL = {"float64": 1e-10, "float32": 1e-4, "tfloat32": 5e-2, "float16": 5e-2, "bfloat16": 5e-2}


@dataclass(frozen=True, kw_only=True, repr=False)
class Setting:
    """The arguments of `sign_schedule`, which says what they mean, checked.

    Equal settings have one design, so a setting is the key of it: as an object in ``tables.py``, as its text in the
    cache. The text leaves defaults out, so that an argument that is new some day renames no file.

    >>> Setting(lower=0.001, upper=1.0, steps=5, dtype="float64")
    Setting(lower=0.001, steps=5)
    >>> Setting(lower=0.001, upper=1.0, steps=5) == Setting(lower=0.001, steps=5)
    True
    """

    lower: float
    upper: float = 1.0
    steps: int | None = None
    products: Number | None = None
    tol: Number | None = None
    degree: int | tuple[int, ...] | Literal["auto"] = 5
    cushion: Number = 0.0
    margin: Number = 1.0
    gram: bool = False
    symmetric: bool = False
    aspect: Number = 1.0
    dtype: str = "float64"

    def __post_init__(self) -> None:
        _check_interval(self)
        _ = self.cost  # which refuses an aspect below 1
        _check_stops(self)
        _check_degrees(self.degree, self.steps)

    def __repr__(self) -> str:
        given = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return f"Setting({', '.join(f'{name}={value!r}' for name, value, default in given if value != default)})"

    @property
    def interval(self) -> Interval:
        """What is mapped to 1."""
        return self.lower, self.upper

    @property
    def cost(self) -> Cost:
        """What products cost."""
        return Cost(gram=self.gram, symmetric=self.symmetric, aspect=self.aspect)

    @property
    def degrees(self) -> tuple[int, ...] | None:
        """The degree of each step, of as many as there may be; None where any mix may be taken."""
        if self.products is not None or isinstance(self.degree, str):
            return None
        return (self.degree,) * (self.steps or MOST_STEPS) if isinstance(self.degree, int) else self.degree

    @property
    def target(self) -> Number | None:
        """The error to stop at; None where steps, products or a list of degrees say when to stop."""
        prescribed = self.steps is not None or self.products is not None or isinstance(self.degree, tuple)
        return _DEFAULT_TOL[self.dtype] if self.tol is None and not prescribed else self.tol

    @property
    def rounded(self) -> bool:
        """Whether the design is for what rounding makes of it; a cushion or a margin are a safety of the caller's."""
        return self.dtype != "float64" and self.cushion == 0 and self.margin == 1


def _check_interval(s: Setting) -> None:
    if not (0 < s.lower < s.upper < math.inf):
        raise ValueError(
            f"sign_schedule needs 0 < lower < upper, got [{s.lower}, {s.upper}]: every odd polynomial is 0 at 0, so no "
            "error below 1 is possible there. Give the least singular value that must arrive at 1."
        )


def _check_stops(s: Setting) -> None:
    if s.dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {s.dtype!r}.")
    if sum(stop is not None for stop in (s.steps, s.products, s.tol)) > 1:
        raise ValueError(
            f"give one of steps, products and tol, got steps={s.steps}, products={s.products}, tol={s.tol}: each "
            "decides alone."
        )
    if s.steps is not None and not 1 <= s.steps <= MOST_STEPS:
        raise ValueError(f"steps must be between 1 and {MOST_STEPS}, got {s.steps}.")
    if s.tol is not None and not 4e-16 <= s.tol < 1:
        raise ValueError(
            f"tol must be between 4e-16, the rounding of the coefficients, and 1, got {s.tol}. Use matfun for exact "
            "routes."
        )
    if not (0 <= s.cushion < 1 <= s.margin < 2):
        raise ValueError(f"cushion must be in [0, 1) and margin in [1, 2), got cushion={s.cushion}, margin={s.margin}.")
    if s.products is not None and not s.products > 0:
        raise ValueError(f"products must be positive, got {s.products}.")


def _check_degrees(degree: object, steps: int | None) -> None:
    if degree == "auto":
        return
    degrees = tuple(degree) if isinstance(degree, Sequence) else (degree,)
    if not degrees or any(not isinstance(d, int) or d < 3 or d % 2 == 0 or d > 41 for d in degrees):
        raise ValueError(f"degree must be odd and from 3 to 41, a list of such, or 'auto', got {degree!r}.")
    if isinstance(degree, Sequence) and steps not in (None, len(degrees)):
        raise ValueError(f"steps={steps} disagrees with {len(degrees)} degrees: leave steps out.")
