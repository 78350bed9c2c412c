"""One optimizer step: gradients of the whole batch, and what stops a run."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from spectrain.train._run.job import AbstractJob, Measured


@dataclass(frozen=True)
class StepResult:
    """What one step reports."""

    measured: Measured
    grad_norm: float
    optimizer_seconds: float


def step(job: AbstractJob, optimizer: torch.optim.Optimizer, at: int, *, clip: Callable[[], float]) -> StepResult:
    """Gradients of batch ``at``, clip, update. ``clip`` clips what is to be clipped, returns the norm before.

    Raises ``FloatingPointError`` naming the first tensor that is not finite, before any weight is touched.
    """
    optimizer.zero_grad(set_to_none=True)
    measured = job.accumulate(at)
    grad_norm = clip()
    if not (math.isfinite(measured.loss) and math.isfinite(grad_norm)):
        optimizer.zero_grad(set_to_none=True)  # clipping by a norm of NaN has spoilt every gradient
        job.accumulate(at)
        raise FloatingPointError(job.first_bad_tensor(at))
    start = time.perf_counter()
    optimizer.step()
    return StepResult(measured, grad_norm, time.perf_counter() - start)
