"""Which singular values count, and for which of them that is certain: those farther from the cut than their errors."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spectrain._arrays.scale import times_power_of_two
from spectrain.matfun._entry.input import Real

_MODEST = 8  # decompositions of tiny matrices are off by more than eps max(m, n): a "modest" function in LAPACK's words


def decomposition_noise(longest: int) -> float:
    """Return the relative size of values that a decomposition in float64 makes of zeros (Golub and Van Loan, 5.4.1)."""
    return torch.finfo(torch.float64).eps * (longest + _MODEST)


class Band(NamedTuple):
    """An enclosure of the cut, which itself is computed from singular values that have errors."""

    low: Float[Tensor, " b"]
    high: Float[Tensor, " b"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Which singular values count: those above a threshold, above rtol * max(S), or above rounding noise."""

    dtype: torch.dtype
    rtol: Real | None = None
    threshold: Tensor | None = None

    def of(self, items: Tensor) -> "Cut":
        """Return the cut for some matrices of the batch."""
        return self if self.threshold is None else Cut(self.dtype, None, self.threshold[items])

    def floor(self, largest: Float[Tensor, " b"], norm: Float[Tensor, " b"], shape: torch.Size) -> Float[Tensor, " b"]:
        """Return the size at or below which singular values count as zero; the Frobenius norm is ``norm``.

        By default the larger of u rms(X) (sqrt(m) + sqrt(n)), u the unit roundoff of ``dtype``, which is what rounding
        the entries of X to that dtype creates by itself (the norm of a random matrix, Davidson and Szarek 2001), and
        eps max(S) (max(m, n) + 8), eps of float64: the noise of a decomposition, which counts for input in float64
        (Golub and Van Loan, Matrix Computations, 5.4.1). It does not depend on the dtype that is computed in: one
        matrix has one rank, whatever finds it.
        """
        if self.threshold is not None:
            return self.threshold.to(largest.dtype)
        if self.rtol is not None:
            return self.rtol * largest
        noise, decomposition = self._default(shape)
        return torch.maximum(noise * norm, decomposition * largest)

    def below(self, S: Float[Tensor, "b k"], shape: torch.Size) -> Float[Tensor, " b"]:
        """Return the floor for the singular values S."""
        return self.floor(S.amax(-1), torch.linalg.vector_norm(S, dim=-1), shape)

    def band(self, S: Float[Tensor, "b k"], shape: torch.Size, delta: Float[Tensor, " b"]) -> Band:
        """Return what the floor can be where the true singular values are within ``delta`` of S in norm."""
        floor = self.below(S, shape)
        slope = 0.0 if self.threshold is not None else max(self._default(shape)) if self.rtol is None else self.rtol
        spread = slope * delta + S.shape[-1] * torch.finfo(S.dtype).eps * floor
        return Band(floor - spread, floor + spread)

    def _default(self, shape: torch.Size) -> tuple[float, float]:
        """Return the factors on the Frobenius norm and on the largest singular value."""
        m, n = shape[-2:]
        noise = torch.finfo(self.dtype).eps / 2 * (m**0.5 + n**0.5) / (m * n) ** 0.5
        return noise, decomposition_noise(max(m, n))

    def __str__(self) -> str:
        if self.threshold is not None:
            return "the threshold"
        return "the rounding noise of the input" if self.rtol is None else f"rtol = {self.rtol:g} times the largest"


def beside(
    band: Band,
    S: Float[Tensor, "b k"],
    keep: Bool[Tensor, "b k"],
    delta: Float[Tensor, " b"],
    most: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Return how many singular values may be on the other side; they are within delta of S, if dropped up to ``most``.

    A value that was kept is above the cut if S - delta is above all that the cut can be, one that was not is below if
    S + delta, or ``most``, is below all of that. Nothing is decided by S itself: another LAPACK finds another S.
    """
    away, (low, high) = delta[:, None], (end[:, None] for end in band)
    above = keep & (S - away > high)
    below = ~keep & ((S + away <= low) | (most[:, None] <= low))
    return (~(above | below)).sum(-1).to(S.dtype)


def exact_zeros(X: Float[Tensor, "b m n"]) -> Int[Tensor, " b"]:
    """Return how many of the min(m, n) singular values are exactly zero because rows or columns of X are.

    >>> exact_zeros(torch.tensor([[[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])).tolist()
    [1]
    """
    present = X != 0
    rank = torch.minimum(present.any(-1).sum(-1), present.any(-2).sum(-1))
    return min(X.shape[-2:]) - rank


def absolute(value: Real, k: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return value * 2**-k: a size in the units of matrices that were scaled by 2**-k."""
    filled = torch.full((len(k), 1, 1), float(value), dtype=torch.float64, device=k.device)
    return times_power_of_two(filled, -k)[:, 0, 0]
