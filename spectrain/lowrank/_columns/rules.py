"""The rules that choose columns, under their names: what each is given and what it guarantees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from spectrain.lowrank._columns.exchanges import exhaustive, fit, greedy, swap
from spectrain.lowrank._columns.pivoted_qr import fill_up, pivoted_qr
from spectrain.lowrank._columns.random import by_elimination, pivots_of_some, random_pivoting, row_sketch
from spectrain.lowrank._columns.scores import (
    adaptive_random,
    by_leverage,
    by_norm,
    by_residual_and_leverage,
    deim,
    draw_columns,
    leverage_scores,
    near_centres,
    qdeim,
    uniform,
)
from spectrain.lowrank._columns.strong_rrqr import strong_rrqr

EXACT_WORK = 2e9  # products in the default rule: below, four rules and all exchanges; above, pivoted QR alone


@dataclass(frozen=True)
class Task:
    """One matrix to choose k columns of, and what the rules may want to know."""

    A: Tensor
    k: int
    draw: torch.Generator
    bound: float = 2.0
    oversample: int = 10
    power: int = 0
    block: int = 16

    @cached_property
    def R(self) -> Tensor:  # noqa: N802 - the factor of QR
        """A matrix with the same columns up to rotation, of at most n rows: distances and angles are those of A."""
        return torch.linalg.qr(self.A, mode="r").R if self.A.shape[0] > self.A.shape[1] else self.A

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor]:
        """Singular values and right singular vectors, all of them."""
        _, S, Vh = torch.linalg.svd(self.R, full_matrices=False)
        return S, Vh

    @property
    def leading(self) -> Tensor:
        """The k leading right singular vectors, as rows."""
        return self.svd[1][: self.k]


def _sketch(task: Task) -> Tensor:
    size = min(*task.A.shape, task.k + task.oversample)
    return by_elimination(row_sketch(task.A, size, power=task.power, draw=task.draw), task.k)


def _osinsky(task: Task) -> Tensor:
    return by_residual_and_leverage(*task.svd, task.k)


def _several(task: Task) -> Tensor:
    """Return the best of four starts after all exchanges; of a large matrix the pivots of QR."""
    m, n = task.A.shape
    if min(m, n) * m * n > EXACT_WORK:
        return pivoted_qr(task.A, task.k).columns
    starts = [_osinsky(task), greedy(task.R, task.k), qdeim(task.leading), pivoted_qr(task.R, task.k).columns]
    best, chosen = torch.inf, starts[-1]
    for J in {tuple(sorted(S.tolist())): S for S in starts if len(S) == task.k}.values():
        J = swap(task.R, J)
        if (now := fit(task.R, J)) is not None and float(now.error) < best:
            best, chosen = float(now.error), J
    return chosen


RULES: dict[str, Callable[[Task], Int[Tensor, " k"]]] = {
    "auto": _several,
    "pivoted_qr": lambda task: pivoted_qr(task.A, task.k).columns,
    "strong_rrqr": lambda task: strong_rrqr(task.R, task.k, bound=task.bound),
    "osinsky": _osinsky,
    "greedy": lambda task: greedy(task.R, task.k),
    "exhaustive": lambda task: exhaustive(task.A, task.k),
    "randomized": _sketch,
    "random_pivoting": lambda task: random_pivoting(task.A, task.k, block=task.block, draw=task.draw),
    "adaptive": lambda task: adaptive_random(task.leading, task.draw),
    "leverage": lambda task: by_leverage(task.leading),
    "leverage_sampling": lambda task: draw_columns(leverage_scores(task.leading), task.k, task.draw),
    "deim": lambda task: deim(task.leading),
    "qdeim": lambda task: qdeim(task.leading),
    "kmeans": lambda task: near_centres(task.R, task.k, task.draw),
    "optim_rid": lambda task: pivots_of_some(task.A, task.k, extra=task.oversample, draw=task.draw),
    "norms": lambda task: by_norm(task.A, task.k),
    "norm_sampling": lambda task: draw_columns(torch.linalg.vector_norm(task.A, dim=0), task.k, task.draw),
    "uniform": lambda task: uniform(task.A, task.k, task.draw),
}


def choose_by(rule: str, task: Task, *, refine: bool) -> Int[Tensor, " k"]:
    """Return k different columns by the rule, filled up where it found fewer independent ones, refined on request."""
    J = RULES[rule](task).to(task.A.device)
    if refine:
        J = swap(task.R, J)
    return fill_up(J, task.k, task.A.shape[1])
