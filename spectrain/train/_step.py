"""One optimizer step: gradients of the whole batch, whatever the micro-batches; and what stops a run."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor, nn

from spectrain import nn as blocks
from spectrain import objectives
from spectrain.train._evaluation import Score, count


@dataclass(frozen=True)
class StepResult:
    """What one step reports."""

    score: Score
    grad_norm: float
    optimizer_seconds: float


def accumulate(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, micro_batch: int, autocast: torch.autocast
) -> float:
    """Leave the gradient of the mean loss over all targets in ``p.grad``; return the sum of nats.

    Each micro-batch's summed loss is divided by the number of targets of the *whole* batch, so the
    gradient is that of the full batch also where micro-batches hold different numbers of targets.
    """
    total = max(1, int((targets >= 0).sum()))
    nats = 0.0
    for x, y in _micro_batches(inputs, targets, micro_batch):
        with autocast:
            logits = model(x)
        loss = objectives.negative_log_likelihood(logits, y)
        (loss / total).backward()
        nats += loss.item()
    return nats


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    *,
    micro_batch: int,
    clip: Callable[[], float],
    autocast: torch.autocast,
    byte_lengths: Integer[np.ndarray, " vocabulary"],
) -> StepResult:
    """Forward, backward, clip, update. ``clip`` clips what is to be clipped and returns the norm before.

    Raises ``FloatingPointError`` naming the first tensor that is not finite, before any weight is touched.
    """
    optimizer.zero_grad(set_to_none=True)
    nats = accumulate(model, inputs, targets, micro_batch=micro_batch, autocast=autocast)
    grad_norm = clip()
    if not (math.isfinite(nats) and math.isfinite(grad_norm)):
        optimizer.zero_grad(set_to_none=True)  # clipping by a norm of NaN has spoilt every gradient
        accumulate(model, inputs, targets, micro_batch=micro_batch, autocast=autocast)
        raise FloatingPointError(first_bad_tensor(model, inputs, autocast=autocast))
    start = time.perf_counter()
    optimizer.step()
    seconds = time.perf_counter() - start
    tokens, size = count(targets, byte_lengths)
    return StepResult(Score(nats, tokens, size), grad_norm, seconds)


@torch.no_grad()
def first_bad_tensor(model: nn.Module, inputs: Tensor, *, autocast: torch.autocast) -> str:
    """Name the first tensor that is NaN or infinite: weights, then outputs as computed, then gradients."""
    for name, p in model.named_parameters():
        if not p.isfinite().all():
            return f"weight {name} is not finite"
    with blocks.capture(model, "*") as seen, autocast:
        model(inputs)
    for name, outputs in seen.items():
        if not all(output.isfinite().all() for output in outputs):
            return f"the output of {name or 'the model'} is not finite"
    for name, p in model.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"the gradient of {name} is not finite"
    return "the loss is not finite although weights, outputs and gradients are"


def _micro_batches(inputs: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(inputs.split(size), targets.split(size), strict=True)
