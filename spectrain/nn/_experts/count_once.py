"""The identity whose backward pass counts: it runs once for a trained token, whatever recomputes the forward pass.

Checkpointing computes the forward pass twice, and one backward pass: of the first graph (non-reentrant) or of the
second (reentrant). Evaluation has none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def count_once(
    x: Tensor, totals: Sequence[Tensor], counts: Sequence[Tensor], *, kept: list[Tensor], evidence: Tensor | None = None
) -> Tensor:
    """``x``; when its gradient passes, each of the integer ``totals`` grows by its ``counts``.

    ``evidence`` is then appended to ``kept``, which no compiled graph can do: there the graph breaks once.
    """
    if torch.compiler.is_compiling() and evidence is None:
        out: Tensor = count_operator(x, list(totals), list(counts))
        return out
    eager: Tensor = _CountOnce.apply(x, totals, counts, kept, evidence)
    return eager


class _CountOnce(torch.autograd.Function):
    """In eager execution; a view, so that nothing is copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *seen: Any) -> Tensor:
        ctx.seen = seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.seen is not None:  # None where two losses of one forward pass go back apart
            totals, counts, kept, evidence = ctx.seen
            _add(totals, counts)
            if evidence is not None:
                kept.append(evidence)
        ctx.seen = None
        return grad, None, None, None, None


@torch.no_grad()
def _add(totals: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
    for total, count in zip(totals, counts, strict=True):
        total += count


def _copy(x: Tensor, totals: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    return x.clone()


count_operator = torch.library.custom_op(
    "spectrain::counted_once", _copy, mutates_args=(), schema="(Tensor x, Tensor[] totals, Tensor[] counts) -> Tensor"
)
add_operator = torch.library.custom_op(
    "spectrain::add_counts", _add, mutates_args=("totals",), schema="(Tensor(a!)[] totals, Tensor[] counts) -> ()"
)


@count_operator.register_fake
def _(x: Tensor, totals: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(x)


@add_operator.register_fake
def _(totals: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
    return None


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.totals, ctx.counts = inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    add_operator(ctx.totals, ctx.counts)
    return grad, [None] * len(ctx.totals), [None] * len(ctx.counts)


count_operator.register_autograd(_backward, setup_context=_set_up)
