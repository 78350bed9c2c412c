"""A learning rate made of the gradient norms that an earlier run logged (articles 11530 and 11494)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float

from spectrain.optim._schedule import AbstractSchedule, Factors


@final
@dataclass(frozen=True, kw_only=True)
class Refined(AbstractSchedule):
    r"""The schedule that minimises the bound on the last iterate of SGD for gradients of these norms.

    With G_t the norm of the gradient at step t and Q_t = sum_{k <= t} G_k^-2,

        eta_t proportional to G_t^-2 (1 - Q_{t-1} / Q_T)

    (article 11530, kexue.fm/archives/11530; Defazio and others, arXiv 2310.07831, who found it to fit other optimizers
    as well). Large first gradients make a warm-up of it, constant ones the linear fall of ``WarmupDecay`` (article
    11494). Q_{t-1} in place of the article's Q_t: no step has rate zero. The largest factor is 1.

    ``norms`` are those of a run of any length; they are taken for the same shares of the ``steps`` here. Single norms
    are noise: each is the median over ``smooth`` of the run, as in the paper. ``joint`` moves the decay along with
    the learning rate. Later steps have factor 0.

    Raises ValueError for no norms, norms that are not positive and finite, steps < 1 and a ``smooth`` outside [0, 1].

    >>> schedule = Refined(norms=(4.0, 2.0, 1.0, 1.0), steps=4, smooth=0)
    >>> [round(schedule(step).lr, 4) for step in range(5)]
    [0.0723, 0.2812, 1.0, 0.5, 0.0]
    """

    norms: Sequence[float] | Float[np.ndarray, " n"]
    steps: int
    smooth: float | int = 0.1
    joint: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", tuple(float(norm) for norm in self.norms))
        found = np.asarray(self.norms)
        if not len(found) or not (np.isfinite(found).all() and (found > 0).all()):
            raise ValueError("Refined: norms must hold the gradient norm of each step of a run, positive and finite.")
        if (
            isinstance(self.steps, bool)
            or not isinstance(self.steps, int)
            or self.steps < 1
            or not 0 <= self.smooth <= 1
        ):
            raise ValueError(
                f"Refined: steps must be an integer >= 1 and smooth a share of the run, got {self.steps} and "
                f"{self.smooth}."
            )

    def __call__(self, step: int) -> Factors:
        """Return the factors of a step, counted from 0."""
        lr = float(self._table[step]) if step < self.steps else 0.0
        return Factors(lr, lr if self.joint else 1.0)

    @cached_property
    def _table(self) -> Float[np.ndarray, " steps"]:
        """The factors of all steps, computed with the first."""
        G = _medians(np.asarray(self.norms), round(self.smooth * len(self.norms)))
        if len(G) != self.steps:
            shares = [(np.arange(n) + 0.5) / n for n in (self.steps, len(G))]
            G = np.interp(shares[0], shares[1], G)
        w = (G / G.min()) ** -2.0
        after = np.cumsum(w[::-1])[::-1]  # Q_T - Q_{t-1}
        eta = w * after
        return np.asarray(eta / eta.max())


def _medians(G: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " n"]:
    """The median of each and its neighbours, ``width`` in all; at the ends those that there are."""
    half = width // 2
    if not half:
        return G
    return np.array([np.median(G[max(0, i - half) : i + half + 1]) for i in range(len(G))])
