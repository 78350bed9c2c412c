"""Torch's optimizer without the compiler, which its methods import when they are first called: a second of work."""

import inspect
from typing import Any

from torch.optim.optimizer import Optimizer

from spectrain._arrays.graphs import outside_graphs


class EagerOptimizer(Optimizer):
    """``torch.optim.Optimizer``; what it keeps out of graphs stays so, and nobody compiles who has no compiler."""

    @outside_graphs
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zero."""
        inspect.unwrap(Optimizer.zero_grad)(self, set_to_none)

    @outside_graphs
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group."""
        inspect.unwrap(Optimizer.add_param_group)(self, param_group)

    @outside_graphs
    def state_dict(self) -> dict[str, Any]:
        """The groups, and the state of every parameter that has one."""
        return dict(inspect.unwrap(Optimizer.state_dict)(self))

    @outside_graphs
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        inspect.unwrap(Optimizer.load_state_dict)(self, state_dict)
