"""Where the first NaN or infinity is."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spectrain import nn as blocks


@torch.no_grad()
def first_bad_tensor(model: nn.Module, forward: Callable[[], object]) -> str:
    """Name the first tensor that is NaN or infinite: weights, then outputs as computed, then gradients.

    ``forward`` runs the model on the batch in question.
    """
    for name, p in model.named_parameters():
        if not p.isfinite().all():
            return f"weight {name} is not finite"
    with blocks.capture(model, "*") as seen:
        forward()
    for name, outputs in seen.items():
        if not all(output.isfinite().all() for output in outputs if isinstance(output, Tensor)):
            return f"the output of {name or 'the model'} is not finite"
    for name, p in model.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"the gradient of {name} is not finite"
    return "the loss is not finite although weights, outputs and gradients are"
