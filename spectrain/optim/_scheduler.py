"""A schedule driving an optimizer: learning rate and weight decay of every group."""

from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from spectrain.optim._schedule import AbstractSchedule


class ScheduleLR(LRScheduler):
    """Multiply each group's own learning rate and weight decay by ``schedule(step)``.

    A torch ``LRScheduler`` for any optimizer: call ``step()`` after ``optimizer.step()``. The rate and decay
    that a group had when the scheduler was made are what the factors multiply; they are kept in the group as
    ``initial_lr`` and ``initial_weight_decay`` and travel with the optimizer's state; a group that is added later
    gives those that it comes with, and follows from the next ``step()``. The state dict of the
    scheduler holds numbers only; give the same ``schedule`` on resume.

    >>> import torch
    >>> from spectrain.optim import Muon, Schedule
    >>> optimizer = Muon([torch.nn.Parameter(torch.ones(2, 2))], lr=0.5, weight_decay=0.25)
    >>> scheduler = ScheduleLR(optimizer, Schedule(steps=4, joint=True))
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
