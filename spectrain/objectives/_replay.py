"""Running an encoder twice so that the second time is the first: the same dropout masks, the same buffers."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from spectrain.objectives._chunks import leaves
from spectrain.objectives._modules import modules


class Randomness:
    """The state of all global generators, torch's (CPU and the devices of given inputs), NumPy's, Python's."""

    def __init__(self, inputs: Any) -> None:
        self.python = random.getstate()
        self.numpy = np.random.get_state()
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(*(x for x in leaves(inputs) if isinstance(x, Tensor)))
        random.setstate(self.python)  # checks of annotations draw from Python's: looking must not

    def restore(self) -> None:
        """Go back to that moment."""
        torch.set_rng_state(self.cpu)
        set_device_states(self.devices, self.states)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def same(self, other: "Randomness") -> bool:
        """Whether nothing was drawn between the two."""
        states = zip([self.cpu, *self.states], [other.cpu, *other.states], strict=True)
        numpy = all(np.array_equal(a, b) for a, b in zip(self.numpy, other.numpy, strict=True))
        return all(torch.equal(a, b) for a, b in states) and numpy and self.python == other.python


@contextmanager
def buffers_kept(encoders: Sequence[object]) -> Iterator[None]:
    """Put every buffer back as it was: a second pass must not count an example twice."""
    before = [(buffer, buffer.clone()) for module in modules(encoders) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class Watched:
    """The buffers that an encoder's output may depend on, to see whether a pass changes them."""

    def __init__(self, encoders: Sequence[object]) -> None:
        self.before = {
            name: (buffer, buffer.clone())
            for module in modules(encoders)
            for owner_name, owner in module.named_modules()
            if not isinstance(owner, nn.modules.batchnorm._BatchNorm)
            for name, buffer in owner.named_buffers(prefix=owner_name, recurse=False)
        }

    def refuse_change(self) -> None:
        """Raise ``ValueError`` naming a buffer that changed: the replay would compute something else."""
        for name, (buffer, value) in self.before.items():
            if not torch.equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)
                raise ValueError(
                    f"Contrastive: a forward pass in training mode changes the buffer {name}, so that the second pass "
                    "would not repeat the first (spectral normalisation does this). Put that module into eval(), or "
                    "use a loss that needs no second pass. No gradient was touched."
                )
