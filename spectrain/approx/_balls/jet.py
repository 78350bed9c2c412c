"""Functions followed by balls: a Python callable evaluated on truncated Taylor series with rigorous remainders."""

import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, no_type_check

import flint
import numpy as np
from flint import arb, arb_series

from spectrain.approx._balls.branches import Branches, NotFollowedError, UndecidedError
from spectrain.approx._balls.range import ball

_NAN = arb("nan")


_LESS, _SAME, _MORE = (frozenset({sign}) for sign in (-1, 0, 1))


@no_type_check  # a call for every number: checks in tests would cost more than the arithmetic
class Jet:
    """A value with derivatives: a power series in t whose coefficients are balls.

    It has arithmetic, comparisons and, as methods, the functions that NumPy calls on arrays of objects, so that
    ``np.exp`` of an array of jets works. A comparison that the balls do not decide raises `UndecidedError`, or asks
    ``branches`` where they are given.
    """

    __slots__ = ("branches", "series")

    if TYPE_CHECKING:  # the methods that `_delegate` adds below

        def exp(self) -> "Jet": ...
        def log(self) -> "Jet": ...

    def __init__(self, series: arb_series, branches: Branches | None = None) -> None:
        self.series = series
        self.branches = branches

    def _new(self, series: arb_series) -> "Jet":
        return Jet(series, self.branches)

    def _other(self, x: object) -> Any:
        if type(x) is Jet:
            return x.series
        if type(x) is int or isinstance(x, (numbers.Real, arb, flint.fmpq)):
            return ball(x)
        raise NotFollowedError(f"a {type(x).__name__} met a ball")

    def __add__(self, x: object) -> "Jet":
        return self._new(self.series + self._other(x))

    def __sub__(self, x: object) -> "Jet":
        return self._new(self.series - self._other(x))

    def __rsub__(self, x: object) -> "Jet":
        return self._new(self._other(x) - self.series)

    def __mul__(self, x: object) -> "Jet":
        return Jet(self.series * (x.series if type(x) is Jet else self._other(x)), self.branches)

    def __truediv__(self, x: object) -> "Jet":
        return self._quotient(self.series, self._other(x))

    def __rtruediv__(self, x: object) -> "Jet":
        return self._quotient(arb_series([self._other(x)]), self.series)

    def _quotient(self, over: Any, under: Any) -> "Jet":
        divisor = under if isinstance(under, arb) else under[0]
        if not divisor.contains(arb(0)):
            return self._new(over / under)
        if self.order == 1:
            return self._new(arb_series([arb("nan")]))
        raise UndecidedError

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Jet":
        return self._new(-self.series)

    def __pos__(self) -> "Jet":
        return self

    def __pow__(self, n: object) -> "Jet":
        if isinstance(n, (float, np.floating)) and float(n).is_integer():
            n = int(n)
        if isinstance(n, (int, np.integer)):
            return self._whole_power(int(n))
        if isinstance(n, (float, np.floating)) and float(2 * n).is_integer():
            return self._whole_power(int(n - 0.5)) * self.sqrt()
        if isinstance(n, (float, np.floating)) and n > 0 and self.lead.contains(arb(0)):
            return self._root_at_zero(float(n))
        return (self.log() * n).exp()

    def _root_at_zero(self, n: float) -> "Jet":
        """x^n where x may be 0: a value, no slope. x is real and not negative, so what reaches below is width."""
        if self.order > 1:
            raise UndecidedError
        top = self.lead.upper()
        if top < 0:
            return self._new(arb_series([_NAN]))
        return self._new(arb_series([arb(0).union(top ** ball(n)) if top > 0 else arb(0)]))

    def _whole_power(self, n: int) -> "Jet":
        if n == 0:
            return self._new(arb_series([1]))
        if n < 0:
            return 1 / self._whole_power(-n)
        if self.order == 1:
            return self._new(arb_series([self.lead**n]))
        half = self._whole_power(n // 2) if n > 1 else self
        return self if n == 1 else half * half * (self if n % 2 else 1)

    def __rpow__(self, base: object) -> "Jet":
        return (self * self._other(base).log()).exp()

    @property
    def lead(self) -> arb:
        """The value itself, without derivatives."""
        return self.series[0]

    @property
    def order(self) -> int:
        """Number of coefficients that are kept."""
        return int(flint.ctx.cap)

    def _holds(self, x: object, wanted: frozenset[int]) -> bool:
        """Whether the sign of self - x is among the wanted ones."""
        gap = (self - x).lead
        possible = frozenset(
            sign for sign, no in ((-1, gap >= 0), (0, not gap.contains(arb(0))), (1, gap <= 0)) if not no
        )
        if self.branches is not None:
            possible = self.branches.possible(gap, possible)
        if possible <= wanted:
            return True
        if not possible & wanted:
            return False
        if self.branches is None:
            raise UndecidedError
        answer = self.branches.ask()
        self.branches.note(gap, possible & wanted if answer else possible - wanted)
        return answer

    def __lt__(self, x: object) -> bool:
        return self._holds(x, _LESS)

    def __ge__(self, x: object) -> bool:
        return not self < x

    def __gt__(self, x: object) -> bool:
        return self._holds(x, _MORE)

    def __le__(self, x: object) -> bool:
        return not self > x

    def __eq__(self, x: object) -> bool:
        return self._holds(x, _SAME)

    def __ne__(self, x: object) -> bool:
        return not self == x

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return self != 0

    def __abs__(self) -> "Jet":
        if self.order == 1:
            return self._new(arb_series([abs(self.lead)]))
        return self if self >= 0 else -self

    fabs = absolute = __abs__

    def sqrt(self) -> "Jet":
        if self.order == 1:
            # Where the function is real what reaches below 0 is only the ball's width; a whole ball there is none.
            return self._new(arb_series([_NAN if self.lead < 0 else self.lead.nonnegative_part().sqrt()]))
        return self._new(self.series.sqrt())

    def square(self) -> "Jet":
        return self._whole_power(2)

    def reciprocal(self) -> "Jet":
        return 1 / self

    def cbrt(self) -> "Jet":
        if self.order == 1:
            low, high = (_cube_root(end) for end in (self.lead.lower(), self.lead.upper()))
            return self._new(arb_series([low.union(high)]))
        if self.lead.contains(arb(0)):
            raise UndecidedError
        return (self.log() / 3).exp() if self > 0 else -((-self).log() / 3).exp()

    def sign(self) -> "Jet":
        return self._new(arb_series([1 if self > 0 else -1 if self < 0 else 0]))

    def conjugate(self) -> "Jet":
        return self

    def expm1(self) -> "Jet":
        return self._new(arb_series([self.lead.expm1()])) if self.order == 1 else self.exp() - 1

    def log1p(self) -> "Jet":
        return self._new(arb_series([self.lead.log1p()])) if self.order == 1 else (self + 1).log()

    def exp2(self) -> "Jet":
        return (self * arb(2).log()).exp()

    def log2(self) -> "Jet":
        return self.log() / arb(2).log()

    def log10(self) -> "Jet":
        return self.log() / arb(10).log()

    def sinh(self) -> "Jet":
        return (self.exp() - (-self).exp()) / 2

    def cosh(self) -> "Jet":
        return (self.exp() + (-self).exp()) / 2

    def tanh(self) -> "Jet":
        if self.order == 1:
            return self._new(arb_series([self.lead.tanh()]))
        return 1 - 2 / ((self * 2).exp() + 1)

    def arcsinh(self) -> "Jet":
        return (self + (self * self + 1).sqrt()).log()

    def arctanh(self) -> "Jet":
        return ((1 + self) / (1 - self)).log() / 2


def _cube_root(x: arb) -> arb:
    if x.is_zero():
        return arb(0)
    return x.root(3) if x > 0 else -(-x).root(3)


def _delegate(name: str, inner: str) -> None:
    def method(self: Jet) -> Jet:
        return self._new(getattr(self.series, inner)())

    method.__name__ = name
    setattr(Jet, name, method)


for _name, _inner in {
    "exp": "exp", "log": "log", "sin": "sin", "cos": "cos", "tan": "tan", "arctan": "atan", "arcsin": "asin",
    "arccos": "acos", "erf": "erf", "erfc": "erfc", "gamma": "gamma", "gammaln": "lgamma",
}.items():  # fmt: skip
    _delegate(_name, _inner)


def follow(f: Callable[[Any], Any], points: list[arb_series], order: int) -> list[arb_series]:
    """f at series of ``order`` coefficients; order 1 means values only, with kinks and branches allowed.

    Raises `UndecidedError` for a branch that a series cannot decide and `NotFollowedError` for whatever balls do
    not know.
    """
    before = flint.ctx.cap
    flint.ctx.cap = order
    try:
        return _call(f, points, None)
    except UndecidedError:
        if order == 1:
            return [_every_branch(f, p) for p in points]
        raise
    except NotFollowedError:
        raise
    except Exception as problem:
        raise NotFollowedError(f"{type(problem).__name__}: {problem}") from problem
    finally:
        flint.ctx.cap = before


def _call(f: Callable[[Any], Any], points: list[arb_series], branches: Branches | None) -> list[arb_series]:
    x = np.empty(len(points), dtype=object)
    x[:] = [Jet(p, branches) for p in points]
    try:
        values = np.broadcast_to(np.asarray(f(x), dtype=object), x.shape)
    except (TypeError, ValueError):  # a function of numbers, not of arrays
        values = np.array([f(v) for v in x], dtype=object)
    return [v.series if isinstance(v, Jet) else arb_series([ball(v)]) for v in values]


def _every_branch(f: Callable[[Any], Any], point: arb_series) -> arb_series:
    """The union of the values over all answers to undecided comparisons."""
    union, *others = _by_branches(f, point)
    for value in others:
        union = union.union(value)
    return arb_series([union])


def _by_branches(f: Callable[[Any], Any], point: arb_series) -> list[arb]:
    """The values for all answers to undecided comparisons, one by one."""
    branches = Branches()
    values = [_call(f, [point], branches)[0][0]]
    while branches.another():
        values.append(_call(f, [point], branches)[0][0])
    return values


def values_over(f: Callable[[Any], Any], x: arb) -> list[arb]:
    """Balls, one of which holds f at each point of the ball x. Both sides of a jump in one ball would cost nine digits:
    a radius has 30 bits. Raises `NotFollowedError`."""
    before = flint.ctx.cap
    flint.ctx.cap = 1
    try:
        return _by_branches(f, arb_series([x], prec=1))
    except NotFollowedError:
        raise
    except Exception as problem:
        raise NotFollowedError(f"{type(problem).__name__}: {problem}") from problem
    finally:
        flint.ctx.cap = before
