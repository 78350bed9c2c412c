"""Batches of small matrices by a kernel that takes all steps of a segment in one launch, where it is chosen."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays._triton.choice import possible
from spectrain._arrays._triton.products import quintics_by_triton
from spectrain.approx import Schedule
from spectrain.approx.internal import Steps
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.gram import coefficients, safe_cuts
from spectrain.matfun._iteration.plain import Start, parts, plain_iterations


def on_chip(
    Xs: Sequence[Float[Tensor, "_ _ _"]], schedule: Schedule, start: Start, upper: Real
) -> list[Float[Tensor, "_ _ _"]] | None:
    """Return the schedule at every X, scaled as by the other forms, or None where not all batches take the kernel.

    Its form is that of Gram, in float32 whatever the dtype of X. So G is formed anew where float32 asks for it: nowhere
    in five steps designed for bfloat16, while in bfloat16 itself this form would not be safe.
    """
    if not possible(*Xs):
        return None
    steps, cuts = coefficients(schedule), safe_cuts(schedule, torch.float32)
    if cuts is None or any(len(c) != 3 for c in steps):
        return None
    Ys, scales = list(Xs), upper / start.top
    for begin, stop in itertools.pairwise((0, *cuts, len(steps))):
        rs = parts(scales if begin == 0 else torch.ones_like(scales), Ys)
        found = [_segment(Y, steps[begin:stop], r) for Y, r in zip(Ys, rs, strict=True)]
        Ys = [Y for Y in found if Y is not None]
        if len(Ys) < len(found):
            return None
    return Ys


def _segment(X: Tensor, steps: Steps, scales: Tensor) -> Tensor | None:
    return quintics_by_triton(X, steps, scales, lambda Y, cs: plain_iterations([Y], cs)[0])
