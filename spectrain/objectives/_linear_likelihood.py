"""The likelihood of a linear head, without the logits of more than a few hundred tokens at a time."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_negative_log_likelihood(
    features: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, "*batch"],
    *,
    ignore: int = -100,
    rows: int = 512,
) -> Float[Tensor, ""]:
    """:func:`negative_log_likelihood` of the logits ``features @ weight.T``, in nats, ``rows`` tokens at a time.

    Of the logits, their softmax and its gradient no more than ``rows x vocabulary`` numbers ever exist. With gradients
    asked for, they are computed at once with the loss, so that no product is repeated: three products of ``2 * tokens *
    vocabulary * width`` operations, as with the logits in one piece. Under autocast the products run in its dtype, as
    the head's would; softmax, sums over tokens and the gradient of ``weight`` are in float32 at least. A loss is
    right however unlikely its target: ``max(z) - z[target] - log max(softmax(z))`` has no small number under the log.

    The second derivative is not defined. Raises ``ValueError`` for ``rows`` below 1.

    Source: chunks with their gradient in the forward pass, as Hsu et al., Liger kernel, arXiv 2410.10989.

    >>> h, w = torch.ones(3, 2), torch.zeros(8, 2, requires_grad=True)
    >>> nats = linear_negative_log_likelihood(h, w, torch.tensor([1, 2, -100]))
    >>> nats.backward()
    >>> round(nats.item(), 4), w.grad[1].tolist()                               # 2 log 8; 2/8 - 1
    (4.1589, [-0.75, -0.75])
    """
    if rows < 1:
        raise ValueError(f"linear_negative_log_likelihood takes 1 or more rows at a time, got rows={rows}.")
    kind = features.device.type
    product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
    with torch.autocast(kind, enabled=False):
        flat = features.flatten(0, -2) if features.ndim > 1 else features.unsqueeze(0)
        if not torch.is_grad_enabled():  # else the Function would be told that a parameter wants its gradient
            flat, weight = flat.detach(), weight.detach()
        out: Tensor = _Likelihood.apply(flat, weight, targets.flatten(), ignore, rows, product)
    return out


_IN_CACHE = 64
"""Tokens whose logits go through softmax together: a few thousand logits of each fit the cache of a core."""


def _replace_by_slope(
    logits: Tensor, target: Tensor, left_out: Tensor | None, *, wide: torch.dtype, graded: bool
) -> Tensor:
    """The sum of nats of some rows; where ``graded``, their gradient takes the place of the logits.

    ``left_out``: rows that do not count, None where all do.
    """
    target, exact = target if left_out is None else target.masked_fill(left_out, 0), logits.to(wide)
    above = exact.amax(-1, keepdim=True) - exact.gather(-1, target)
    p = torch.softmax(exact, -1)
    nats = above - p.amax(-1, keepdim=True).log()
    if graded:
        p.scatter_add_(-1, target, p.new_full(target.shape, -1.0))
        logits.copy_(p)
    if left_out is not None:
        nats.masked_fill_(left_out, 0)
        if graded:
            logits.masked_fill_(left_out, 0)
    return nats.sum()


class _Likelihood(torch.autograd.Function):
    """Loss and both gradients in one pass over the tokens."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, targets: Tensor, ignore: int, rows: int, product: torch.dtype
    ) -> Tensor:
        """The sum of nats; gradients for a loss of one are kept."""
        wide = torch.promote_types(features.dtype, torch.float32)
        head = weight.to(product)
        to_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        nats = torch.zeros((), dtype=wide, device=features.device)
        graded = to_features is not None or to_weight is not None
        graph = torch.compiler.is_compiling()
        together = rows if graph else _IN_CACHE  # a graph would hold each part by itself
        may_look = targets.device.type == "cpu" and type(targets) is Tensor and not graph  # elsewhere that would wait
        some_out = not may_look or bool((targets == ignore).any())
        for start in range(0, len(features), rows):
            some, target = features[start : start + rows].to(product), targets[start : start + rows, None]
            slope = some @ head.mT
            for logits, at in zip(slope.split(together), target.split(together), strict=True):
                out = at == ignore if some_out else None
                nats += _replace_by_slope(logits, at, out, wide=wide, graded=graded)
            if not graded:
                continue
            if to_features is not None:
                to_features[start : start + rows] = slope @ head
            if to_weight is not None:
                to_weight += slope.mT @ some
        ctx.save_for_backward(to_features, None if to_weight is None else to_weight.to(weight.dtype))
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients times that of the loss."""
        to_features, to_weight = (None if kept is None else kept * gradient[0] for kept in ctx.saved_tensors)
        return to_features, to_weight, None, None, None, None
