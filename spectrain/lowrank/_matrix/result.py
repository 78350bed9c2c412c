"""What all factorizations share: a named tuple of factors that knows its rank and its error, and multiplies."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spectrain._arrays.kinds import Array
from spectrain._arrays.typed import Generic, Held
from spectrain.lowrank._matrix.stops import Norm

Kind = TypeVar("Kind", bound="Factorization[Any]")


class Factorization(Generic[Held]):
    """Mixed into a NamedTuple of factors; the tuple unpacks into the letters, the rest are attributes.

    ``rank``: columns kept, one number for each matrix of a batch (factors are padded with zeros to the largest). It is
    not the rank of A: where ``rank=`` is the only stop, that many are kept, whatever the singular values are.
    ``error``: bound on ||A - product of the factors|| in the norm ``norm``, in the units of A, one number for each
    matrix; it is proven but for ``failure``, the probability that it is false (0 where nothing is random).
    ``best``: the smallest error any matrix of this rank has, where the method knows it, else None.
    """

    rank: Held
    error: Held
    best: Held | None
    norm: Norm
    failure: float

    def __init__(self, *_: Array) -> None:
        """Fields are set by the tuple and by :meth:`of`."""

    @classmethod
    def of(
        cls: type[Kind],
        *letters: Array,
        rank: Array,
        error: Array,
        best: Array | None = None,
        norm: Norm = "fro",
        failure: float = 0.0,
        **more: Any,
    ) -> Kind:
        """Return the tuple of these letters with its report; ``more`` are attributes of the kind of result."""
        self = cls(*letters)
        self.rank, self.error, self.best, self.norm, self.failure = rank, error, best, norm, failure
        for key, value in more.items():
            setattr(self, key, value)
        return self

    def chain(self) -> Sequence[Array]:
        """Return the matrices whose product, from left to right, approximates A; half precision is widened."""
        raise TypeError(f"{type(self).__name__} has no factors to multiply")

    def dense(self) -> Held:
        """Return the product of the factors; half precision is multiplied in float32 and rounded once."""
        factors = list(self.chain())
        return self._round(_product(factors, from_left=factors[0].shape[-2] <= factors[-1].shape[-1]))

    def matmul(self, X: Array) -> Held:
        """Return (product of the factors) @ X from right to left, without multiplying the factors out."""
        return self._round(_product([*self.chain(), widen(X)], from_left=False))

    def _round(self, Y: Array) -> Array:
        """Return Y in the dtype of the last letter, which is that of the input."""
        letter = self[-1]  # type: ignore[index]
        return Y.to(letter.dtype) if isinstance(Y, Tensor) else Y.astype(letter.dtype, copy=False)

    def __matmul__(self, X: Array) -> Held:
        return self.matmul(X)

    def __repr__(self) -> str:
        names: tuple[str, ...] = getattr(self, "_fields", ())
        letters: Sequence[Array] = [getattr(self, key) for key in names]
        shapes = ", ".join(f"{key} {'x'.join(map(str, X.shape))}" for key, X in zip(names, letters, strict=True))
        best = "" if self.best is None else f", best {_numbers(self.best)}"
        doubt = f" (false with probability <= {self.failure:.1g})" if self.failure else ""
        return f"{type(self).__name__}({shapes}; rank {_numbers(self.rank)}, error {_numbers(self.error)}{doubt}{best})"


def _numbers(X: Array) -> str:
    values = np.asarray(X.detach().cpu() if isinstance(X, Tensor) else X).reshape(-1)
    shown = " ".join(f"{value:.3g}" for value in values[:4])
    return shown + (" ..." if len(values) > 4 else "")


def _product(factors: list[Array], *, from_left: bool) -> Array:
    while len(factors) > 1:
        if from_left:
            factors[:2] = [factors[0] @ factors[1]]
        else:
            factors[-2:] = [factors[-2] @ factors[-1]]
    return factors[0]


def widen(X: Array) -> Array:
    """Return a factor in float32 where it is in half precision, else as it is."""
    if isinstance(X, Tensor):
        return X.float() if X.dtype in (torch.float16, torch.bfloat16) else X
    return X.astype(np.float32) if X.dtype.itemsize == 2 else X  # of JAX bfloat16, too
