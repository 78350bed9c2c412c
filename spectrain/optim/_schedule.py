"""Learning rate and decay as pure functions of the step, and what lets them drive the groups of an optimizer."""

import abc
import math
import numbers
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

TAILS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "sqrt": lambda x: math.sqrt(1 - x),
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


class Factors(NamedTuple):
    """What a step's learning rate and weight decay are multiplied by."""

    lr: float
    weight_decay: float


class AbstractSchedule(abc.ABC):
    """A pure function of the step, which can be written out for a whole run."""

    @abc.abstractmethod
    def __call__(self, step: int) -> Factors:
        """Return the factors of a step, counted from 0."""

    def values(
        self, steps: int, *, lr: float | int, weight_decay: float | int
    ) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
        """Return learning rates and decays of the steps 0 ... steps-1, as ``averaging_coefficients`` takes them."""
        table = np.array([self(step) for step in range(steps)], dtype=np.float64).reshape(steps, 2)
        return lr * table[:, 0], weight_decay * table[:, 1]


@final
@dataclass(frozen=True, kw_only=True)
class WarmupDecay(AbstractSchedule):
    """Linear warm-up, a constant stretch, and a fall over the last ``decay`` share of the steps.

    The usual schedules are cases of it: linear to zero (the default; Bergsma et al., arXiv 2502.15938), cosine
    (``tail="cosine"``), warmup-stable-decay (``decay=0.2, tail="1-sqrt"``; Haegele et al., arXiv 2405.18392),
    constant (``decay=0``). With x from 0 to 1 over the fall the tails are 1 - x, (1 + cos(pi x))/2,
    sqrt(1 - x) and 1 - sqrt(x), which torchtitan calls sqrt; they end at ``final``. No step has rate zero:
    warm-up begins at 1/warmup and the last step is one before the end of the fall. Later steps have ``final``.
    ``joint`` moves the decay along with the learning rate.

    Raises ValueError for steps < 1, warm-up longer than the run or no whole number, shares outside [0, 1].

    >>> schedule = WarmupDecay(steps=10, warmup=2)
    >>> [schedule(step).lr for step in range(11)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]
    """

    steps: int
    warmup: int = 0
    decay: float | int = 1.0
    tail: str = "linear"
    final: float | int = 0.0
    joint: bool = False

    def __post_init__(self) -> None:
        if not _integers(self.steps, self.warmup) or self.steps < 1 or not 0 <= self.warmup <= self.steps:
            raise ValueError(f"WarmupDecay: needs integers steps >= 1 and 0 <= warmup <= steps, got {self}.")
        if not (0 <= self.decay <= 1 and 0 <= self.final <= 1):
            raise ValueError(f"WarmupDecay: decay and final are shares between 0 and 1, got {self}.")
        if self.tail not in TAILS:
            raise ValueError(f"WarmupDecay: tail must be one of {', '.join(TAILS)}, got {self.tail!r}.")

    def __call__(self, step: int) -> Factors:
        """Return the factors of a step, counted from 0."""
        lr = self._factor(step)
        return Factors(lr, lr if self.joint else 1.0)

    def _factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, self.steps - round(self.decay * self.steps))
        if step < start or (self.decay == 0 and step >= self.steps):
            return 1.0
        x = min(1.0, (step - start) / (self.steps - start)) if start < self.steps else 1.0
        return self.final + (1 - self.final) * TAILS[self.tail](x)


def _integers(*counts: object) -> bool:
    """Whether all are numbers of steps; a warm-up of 0.1, meant as a share, would begin at 10 times the rate."""
    return all(isinstance(count, numbers.Integral) for count in counts)


@final
@dataclass(frozen=True, kw_only=True)
class UniformMemory(AbstractSchedule):
    r"""The schedule under which every update of a run has the same weight in the final weights, whenever it ends.

    With constant decay, s steps after warm-up (article 11459, kexue.fm/archives/11459):

        lr_s = lr / (weight_decay lr s + 1),

    exactly, not only to first order. With ``joint``, where decay falls as the learning rate does, both are
    divided by D_s, D_0 = 1 and D_s = (D + sqrt(D^2 + 4 weight_decay lr)) / 2 for D = D_{s-1}: the exact discrete
    form of the article's sqrt(2 weight_decay lr s + 1), which it approaches. No end has to be known. The first
    ``warmup`` steps rise linearly and have smaller weights. ``lr`` and ``weight_decay`` are the values that
    the factors multiply.

    Uniform weights of *updates* leave the last 1/(1 - momentum) gradients of SGD with momentum short;
    ``schedule_from_coefficients(..., momentum=)`` corrects this for a run of known length.

    >>> from spectrain.optim.averaging import averaging_coefficients
    >>> rates, decays = UniformMemory(lr=0.1, weight_decay=0.5).values(4, lr=0.1, weight_decay=0.5)
    >>> weights = averaging_coefficients(rates, decays).coefficients
    >>> bool(np.ptp(weights) < 1e-15)
    True
    """

    lr: float | int
    weight_decay: float | int
    joint: bool = False
    warmup: int = 0

    def __post_init__(self) -> None:
        rates = self.lr > 0 and self.weight_decay >= 0 and self.lr * self.weight_decay < 1
        if not rates or not _integers(self.warmup) or self.warmup < 0:
            raise ValueError(
                "UniformMemory: needs lr > 0, weight_decay >= 0, their product below 1 and an integer warmup >= 0, "
                f"got {self}."
            )

    def __call__(self, step: int) -> Factors:
        """Return the factors of a step, counted from 0."""
        if step < self.warmup:
            rise = (step + 1) / self.warmup
            return Factors(rise, rise if self.joint else 1.0)
        after = step - max(0, self.warmup - 1)
        product = float(self.lr * self.weight_decay)
        if not self.joint:
            return Factors(1 / (product * after + 1), 1.0)
        fall = 1 / float(_growth(product, 1 << after.bit_length())[after])
        return Factors(fall, fall)


@lru_cache(maxsize=8)
def _growth(product: float, length: int) -> Float[np.ndarray, " steps"]:
    """D_0 ... of D <- (D + sqrt(D^2 + 4 product)) / 2, from 1; lengths double, so that a run costs O(steps)."""
    table = np.ones(length)
    for s in range(1, length):
        table[s] = (table[s - 1] + math.sqrt(table[s - 1] ** 2 + 4 * product)) / 2
    return table


class ScheduleLR(LRScheduler):
    """Multiply each group's own learning rate and weight decay by ``schedule(step)``.

    A torch ``LRScheduler`` for any optimizer: call ``step()`` after ``optimizer.step()``. The rate and decay
    that a group had when the scheduler was made are what the factors multiply; they are kept in the group as
    ``initial_lr`` and ``initial_weight_decay`` and travel with the optimizer's state; a group that is added later
    gives those that it comes with, and follows from the next ``step()``. The state dict of the
    scheduler holds numbers only; give the same ``schedule`` on resume.

    >>> import torch
    >>> from spectrain.optim import Muon, WarmupDecay
    >>> optimizer = Muon([torch.nn.Parameter(torch.ones(2, 2))], lr=0.5, weight_decay=0.25)
    >>> scheduler = ScheduleLR(optimizer, WarmupDecay(steps=4, joint=True))
    >>> rates = []
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
    ...     scheduler.step()
    >>> rates
    [(0.5, 0.25), (0.375, 0.1875), (0.25, 0.125), (0.125, 0.0625)]
    """

    def __init__(self, optimizer: Optimizer, schedule: AbstractSchedule, last_epoch: int = -1) -> None:
        self.schedule = schedule
        for group in optimizer.param_groups:
            group.setdefault("initial_weight_decay", group.get("weight_decay", 0.0))
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Set the decays of this step and return its learning rates, one a group."""
        factors = self.schedule(self.last_epoch)
        groups = self.optimizer.param_groups
        for group in groups:
            group.setdefault("initial_weight_decay", group.get("weight_decay", 0.0))  # added since
            group["weight_decay"] = group["initial_weight_decay"] * factors.weight_decay
        late = [group.setdefault("initial_lr", group["lr"]) for group in groups[len(self.base_lrs) :]]
        self.base_lrs += late
        return [base * factors.lr for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule, without the schedule."""
        state: dict[str, Any] = super().state_dict()
        return {key: value for key, value in state.items() if key != "schedule"}
