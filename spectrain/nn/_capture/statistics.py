"""Statistics of activations, gathered as they pass: memory that does not grow with the number of tokens."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.nn._capture.capture import visit

_ACCURACY = 0.01
_GAMMA = math.log1p(2 * _ACCURACY / (1 - _ACCURACY))
"""Logarithm of the ratio of neighbouring buckets: whatever lies in one is within 1 % of its middle."""
_LOWEST, _HIGHEST = -149, 128
"""Exponents of two that float32 reaches; numbers below count as zero, above as infinite."""
_BUCKETS = 2 + math.ceil((_HIGHEST - _LOWEST) * math.log(2) / _GAMMA)
_FAR = 400
"""Exponents of two from here on are divided out: squares, and their sums, are then far from both ends of float64."""


class Statistics:
    """What is known of all tensors that were added, without keeping any.

    A tensor is a matrix of rows of ``features`` numbers, its last dimension; numbers that are not finite are counted
    and left out. ``rms``, ``mean``, ``mean_absolute``, ``largest`` (in absolute value) and the spectrum are exact up to
    float64 rounding, at every scale: sums are of numbers divided by a power of two where squares could leave its range.
    Quantiles are within 1 % (DDSketch, Masson, Rim and Lee 2019, whose buckets are of equal ratio) for sizes that
    float32 holds; below it is zero, above infinity. The spectrum comes from the sum of X^T X, so singular values below
    1e-8 of the largest are noise; it is kept where there are at most ``gram_limit`` features.

    Memory: 150 kB and 8 features^2 bytes, whatever is added. Cost: one pass, and features^2 multiplications a row.

    >>> seen = Statistics()
    >>> for row in torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double():
    ...     seen.add(row)
    >>> seen.rms, seen.largest, round(seen.spectral_norm, 12), round(seen.stable_rank, 12)
    (2.5, 4.0, 4.0, 1.5625)
    """

    def __init__(self, *, gram_limit: int = 1024) -> None:
        self.calls = self.rows = self.numbers = self.not_finite = 0
        self.largest = 0.0
        self._exponent = 0  # sums are those of numbers divided by two to this power
        self._gram_limit = gram_limit
        self._sum = self._squares = self._absolute = 0.0
        self._below: Tensor | None = None
        self._above: Tensor | None = None
        self._gram: Tensor | None = None

    @torch.no_grad()
    def add(self, x: Float[Tensor, "*rows features"]) -> None:
        """Count a tensor in; ``TypeError`` for complex numbers, which have no order."""
        if x.is_complex():
            raise TypeError(f"Statistics: numbers must be real, got {x.dtype}; add x.abs(), or its real view.")
        x = x.detach().flatten(0, -2) if x.dim() > 1 else x.detach().reshape(1, -1)
        if self._gram is not None and len(self._gram) != x.shape[1]:
            raise ValueError(
                f"Statistics: rows had {len(self._gram)} features, got {x.shape[1]}; use one Statistics for each width."
            )
        x = x.double()
        finite = x.isfinite()
        bad = int(x.numel() - finite.sum())
        if bad:
            x = torch.where(finite, x, 0)
        self.calls += 1
        self.rows += len(x)
        self.numbers += x.numel() - bad
        self.not_finite += bad
        if not x.numel():
            return
        self._count(x[finite] if bad else x.flatten())
        self.largest = max(self.largest, float(x.abs().max()))
        self._rescale(_unit(self.largest))
        x = _times_power(x, -self._exponent)
        self._sum += float(x.sum())
        self._squares += float(x.square().sum())
        self._absolute += float(x.abs().sum())
        if x.shape[1] <= self._gram_limit:
            self._gram = x.mT @ x if self._gram is None else self._gram + x.mT @ x

    def _rescale(self, exponent: int) -> None:
        """Bring the sums to numbers divided by 2^exponent."""
        shift = self._exponent - exponent
        if not shift:
            return
        self._exponent = exponent
        self._sum, self._absolute = math.ldexp(self._sum, shift), math.ldexp(self._absolute, shift)
        self._squares = math.ldexp(self._squares, 2 * shift)
        if self._gram is not None:
            self._gram = _times_power(_times_power(self._gram, shift), shift)

    def _count(self, x: Tensor) -> None:
        size = x.abs().log2()
        bucket = ((size - _LOWEST) * (math.log(2) / _GAMMA)).ceil().clamp(0, _BUCKETS - 1).long()
        below, above = (torch.bincount(bucket[side], minlength=_BUCKETS) for side in (x < 0, x >= 0))
        self._below = below if self._below is None else self._below + below
        self._above = above if self._above is None else self._above + above

    @property
    def mean(self) -> float:
        """Mean of all finite numbers."""
        return math.ldexp(self._sum / self.numbers, self._exponent) if self.numbers else math.nan

    @property
    def mean_absolute(self) -> float:
        """Mean of the absolute values."""
        return math.ldexp(self._absolute / self.numbers, self._exponent) if self.numbers else math.nan

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return math.ldexp(math.sqrt(self._squares / self.numbers), self._exponent) if self.numbers else math.nan

    def quantile(self, q: float) -> float:
        """The number below which a share ``q`` of all numbers lies, within 1 % of its size."""
        if not 0 <= q <= 1:
            raise ValueError(f"Statistics: a quantile must be from 0 to 1, got {q}.")
        if self._below is None or self._above is None or not self.numbers:
            return math.nan
        counts = torch.cat((self._below.flip(0), self._above)).cumsum(0)
        rank = min(self.numbers - 1, math.floor(q * self.numbers))
        at = int(torch.searchsorted(counts, rank, right=True))
        return -_middle(_BUCKETS - 1 - at) if at < _BUCKETS else _middle(at - _BUCKETS)

    def singular_values(self) -> Float[Tensor, " features"]:
        """Of the matrix of all rows, falling.

        Raises ``ValueError`` where nothing was added or there are too many features to keep their products.
        """
        return _times_power(self._scaled_values(), self._exponent)

    def _scaled_values(self) -> Float[Tensor, " features"]:
        """Singular values of the numbers as they are summed, of which squares are safe."""
        if self._gram is None:
            raise ValueError(
                f"Statistics: no spectrum; nothing was added, or rows are above gram_limit={self._gram_limit}."
            )
        return torch.linalg.eigvalsh(self._gram).clamp(min=0).sqrt().flip(0)

    @property
    def spectral_norm(self) -> float:
        """The largest singular value of the matrix of all rows."""
        return float(self.singular_values()[0])

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007)."""
        s = self._scaled_values()
        return float(torch.special.entr(s / s.sum()).sum().exp()) if s.sum() > 0 else 0.0

    @property
    def stable_rank(self) -> float:
        """Sum of squared singular values over the largest of them."""
        s = self._scaled_values().square()
        return float(s.sum() / s[0]) if s[0] > 0 else 0.0

    def row(self) -> dict[str, float | int]:
        """Everything as plain numbers, for a line of metrics."""
        names = ("calls", "rows", "numbers", "not_finite", "mean", "rms", "largest")
        row = {name: getattr(self, name) for name in names}
        row |= {f"quantile_{q:g}": self.quantile(q) for q in (0.01, 0.5, 0.99)}
        if self._gram is not None:
            row |= {name: getattr(self, name) for name in ("spectral_norm", "effective_rank", "stable_rank")}
        return row


@contextmanager
def statistics(
    model: nn.Module, patterns: str | Sequence[str], *, gram_limit: int = 1024
) -> Iterator[dict[str, Statistics]]:
    """Gather :class:`Statistics` of every output that ``capture`` with these patterns would collect.

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    >>> with statistics(model, "*") as seen:
    ...     for _ in range(4):
    ...         _ = model(torch.randn(5, 3))
    >>> seen["1"].rows, seen["1"].quantile(0.0)
    (20, 0.0)
    """
    seen: dict[str, Statistics] = {}

    def add(name: str, tensor: Tensor) -> None:
        seen.setdefault(name, Statistics(gram_limit=gram_limit)).add(tensor)

    with visit(model, patterns, add, edits={}):
        yield seen


def _unit(largest: float) -> int:
    """The power of two by which numbers up to ``largest`` are divided: 0 where their squares are far from both ends."""
    exponent = math.frexp(largest)[1]
    return exponent if abs(exponent) > _FAR else 0


def _times_power(x: Tensor, exponent: int) -> Tensor:
    """x * 2^exponent, in two halves, since one factor could be out of range."""
    if not exponent:
        return x
    half = exponent // 2
    return x * 2.0**half * 2.0 ** (exponent - half)


def _middle(bucket: int) -> float:
    """A number within 1 % of all that fell into the bucket; the lowest holds zero, the highest all beyond float32."""
    if bucket == 0:
        return 0.0
    if bucket == _BUCKETS - 1:
        return math.inf
    return 2.0**_LOWEST * math.exp(_GAMMA * bucket) * 2 / (1 + math.exp(_GAMMA))
