"""When a factorization stops: at a rank, at a relative or at an absolute error, whichever comes first."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._matrix.scale import rescale

Norm: TypeAlias = Literal["fro", 2]

_SAME = 1 + 1e-9  # an error that is the tolerance but for rounding, by another sum of squares, has not missed it


@dataclass(frozen=True, slots=True)
class Stops:
    """The checked stops: ``limit`` columns at most, fewer where the error is at most ``allowed``."""

    limit: int  # the rank asked for, or the largest there is
    full: int  # the largest rank there is
    rtol: Real | None
    atol: Real | None
    norm: Norm

    @property
    def by_error(self) -> bool:
        """Whether a tolerance decides the rank, and with it the shapes of the factors."""
        return self.rtol is not None or self.atol is not None

    def allowance(self, size: Tensor, exponent: Tensor | None = None) -> Tensor:
        """Return the error at which to stop for matrices of norm ``size``: max(rtol * size, atol); -1 for never.

        With ``exponent``, sizes and the answer are of matrices that were divided by 2**exponent.
        """
        if not self.by_error:
            return torch.full_like(size, -1.0)
        absolute = torch.full_like(size, float(self.atol or 0.0))
        return torch.maximum(size * (self.rtol or 0.0), absolute if exponent is None else rescale(absolute, -exponent))

    def ranks(
        self, S: Float[Tensor, "*batch k"], allowed: Float[Tensor, "*batch"], beyond: Tensor | Real = 0.0
    ) -> Int[Tensor, "*batch"]:
        """Return the smallest rank whose truncation error is ``allowed``, at most ``limit``.

        S are singular values, falling; ``beyond`` is the error of what S does not see: the error at rank r is
        (beyond^2 + s_{r+1}^2 + ...)^(1/2), in the spectral norm (beyond^2 + s_{r+1}^2)^(1/2), if the two parts have
        orthogonal columns, as A - Q Q^H A and what is cut off from Q Q^H A have.
        """
        tails = tail_errors(S, norm=self.norm, beyond=beyond)
        over = tails > allowed[..., None]
        return over.sum(-1).clamp(max=min(self.limit, S.shape[-1]))

    def warn_of(self, error: Tensor, allowed: Tensor, rank: Tensor, name: str) -> None:
        """Warn where rounding does not allow the tolerance; where the rank was the stop, all is well."""
        if not self.by_error or torch.compiler.is_compiling():
            return
        missed = (error > allowed * _SAME) & ((rank < self.limit) | (rank == self.full))
        if bool(missed.any()):
            warnings.warn(
                f"{name}: the tolerance is below rounding: the error is {float(error.max()):.3g} and not the "
                f"{float(allowed.min()):.3g} asked for. Pass the matrix in a wider dtype, or allow more",
                RuntimeWarning,
                stacklevel=3,
            )


def tail_errors(S: Float[Tensor, "*batch k"], *, norm: Norm = "fro", beyond: Tensor | Real = 0.0) -> Tensor:
    """Return the error of keeping the first 0, 1, ..., k singular values of S: (*batch, k + 1).

    >>> tail_errors(torch.tensor([4.0, 3.0])).tolist(), tail_errors(torch.tensor([4.0, 3.0]), norm=2).tolist()
    ([5.0, 3.0, 0.0], [4.0, 3.0, 0.0])
    """
    outside = torch.as_tensor(beyond, dtype=S.dtype, device=S.device)[..., None]
    padded = torch.cat([S, S.new_zeros(*S.shape[:-1], 1)], dim=-1)
    squares = padded.square()
    return ((squares if norm == 2 else squares.flip(-1).cumsum(-1).flip(-1)) + outside.square()).sqrt()


def check_stops(
    shape: tuple[int, ...],
    *,
    rank: int | None,
    rtol: Real | None,
    atol: Real | None,
    name: str,
    norm: Norm = "fro",
    most: int | None = None,
    required: bool = True,
) -> Stops:
    """Return the stops for a matrix of this shape, or raise.

    ``most`` is the largest rank there can be (min(m, n) unless given). With ``required``, at least one of the three
    must be given. rank must be an int in 1..most; rtol in [0, 1), since rtol = 1 allows the zero matrix; atol finite
    and not negative; norm "fro" or 2.
    """
    most = min(shape[-2:]) if most is None else most
    if required and rank is None and rtol is None and atol is None:
        raise ValueError(f"{name}: needs a stop: rank= (1 to {most}), rtol= or atol=; several: whichever comes first")
    if rank is not None:
        _check_rank(rank, most, shape, name)
    for key, value, below in (("rtol", rtol, 1.0), ("atol", atol, math.inf)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise TypeError(f"{name}: {key} must be a number, got {type(value).__name__}")
        if not 0 <= value < below:
            raise ValueError(f"{name}: {key} must be in [0, {below:g}), got {value}")
    if norm not in ("fro", 2):
        raise ValueError(f'{name}: norm must be "fro" or 2, got {norm!r}')
    return Stops(limit=most if rank is None else rank, full=most, rtol=rtol, atol=atol, norm=norm)


def _check_rank(rank: int, most: int, shape: tuple[int, ...], name: str) -> None:
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"{name}: rank must be an int, got {type(rank).__name__}; a tolerance is rtol= or atol=")
    if not 1 <= rank <= most:
        m, n = shape[-2:]
        raise ValueError(f"{name}: rank must be between 1 and {most} for a {m} x {n} matrix, got {rank}")
