"""Sorted rows times stacked matrices: one product for every dtype, width, empty group and gradient layout.

torch's ``grouped_mm`` refuses float64, rows that are not a multiple of 16 bytes, and in its backward pass an expanded
gradient. Here each of the two products is the derivative of the other, so that all derivatives of any order are these
two, on operands made contiguous; what ``grouped_mm`` cannot take runs as one product a group, into its own rows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spectrain._arrays.products import onednn_is_faster, onednn_product

GROUPED = (torch.float32, torch.bfloat16)
ALIGNMENT = 16  # bytes; what grouped_mm asks of the stride of a row
LEAST = 64  # of all sides, from where a product of oneDNN gains


def path(dtype: torch.dtype, *widths: int) -> str:
    """Name of what computes products of these widths: ``"grouped_mm"`` or ``"loop"``.

    >>> path(torch.float32, 64, 128), path(torch.float32, 63, 128), path(torch.float64, 64)
    ('grouped_mm', 'loop', 'loop')
    """
    fits = dtype in GROUPED and all(width * dtype.itemsize % ALIGNMENT == 0 for width in widths)
    return "grouped_mm" if fits and hasattr(F, "grouped_mm") else "loop"


def rows(
    x: Float[Tensor, "pairs inner"], matrices: Float[Tensor, "groups outer inner"], ends: Int[Tensor, " groups"]
) -> Float[Tensor, "pairs outer"]:
    """``y[p] = matrices[g(p)] @ x[p]``, where group g holds the rows from ``ends[g - 1]`` to ``ends[g]``.

    Differentiable to every order in ``x`` and ``matrices``; groups may be empty. Cost: one pass over the rows, no
    padding.

    >>> stacked = torch.stack([torch.eye(2), 3 * torch.eye(2)])
    >>> rows(torch.ones(3, 2), stacked, torch.tensor([1, 3])).tolist()
    [[1.0, 1.0], [3.0, 3.0], [3.0, 3.0]]
    """
    out: Tensor = _Rows.apply(x, matrices, ends)
    return out


def outer(
    y: Float[Tensor, "pairs outer"], x: Float[Tensor, "pairs inner"], ends: Int[Tensor, " groups"]
) -> Float[Tensor, "groups outer inner"]:
    """``z[g]``: the sum of ``y[p] x[p]^T`` over the rows of group g, zero where it is empty; as :func:`rows`."""
    out: Tensor = _Outer.apply(y, x, ends)
    return out


class _Rows(torch.autograd.Function):
    """The product, with :class:`_Outer` as half of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrices, ends)
        return rows_into(None, x.contiguous(), matrices, ends)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, matrices, ends = ctx.saved_tensors
        wanted_x, wanted_matrices, _ = ctx.needs_input_grad
        return (
            rows(grad, matrices.mT, ends) if wanted_x else None,
            outer(grad, x, ends) if wanted_matrices else None,
            None,
        )


class _Outer(torch.autograd.Function):
    """The sum of outer products, with :class:`_Rows` as its derivative."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(y, x, ends)
        return outer_into(y.new_empty(len(ends), y.shape[1], x.shape[1]), y.contiguous(), x.contiguous(), ends)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, x, ends = ctx.saved_tensors
        wanted_y, wanted_x, _ = ctx.needs_input_grad
        return rows(x, grad, ends) if wanted_y else None, rows(y, grad.mT, ends) if wanted_x else None, None


def rows_into(out: Tensor | None, x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """:func:`rows` without derivatives, into ``out`` where it is given.

    On a processor torch's grouped product is a loop, too, and makes a tensor of its own to be copied from.
    """
    there = out is not None and x.device.type == "cpu"
    if len(x) and path(x.dtype, *matrices.shape[1:]) == "grouped_mm" and not there and not _takes_onednn(x, matrices):
        found = F.grouped_mm(x, _make_dense(matrices).mT, offs=ends.to(torch.int32))
        return found if out is None else out.copy_(found)
    out = x.new_empty(len(x), matrices.shape[1]) if out is None else out
    sizes = _sizes(ends)
    for a, b, into in zip(x.split(sizes), matrices.mT.unbind(), out.split(sizes), strict=True):
        if len(a):
            _product(a, b, into)
    return out


def outer_into(out: Tensor, y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """:func:`outer` without derivatives, into ``out``: zeros for a group without rows."""
    sizes = _sizes(ends)
    for a, b, into in zip(y.split(sizes), x.split(sizes), out.unbind(), strict=True):
        if len(a):
            _product(a.mT, b, into)
        else:
            into.zero_()
    return out


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    if _takes_onednn(a, b):
        out.copy_(onednn_product(a, b))
    else:
        torch.mm(a, b, out=out)


def _takes_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether a float32 product goes to the faster of torch's two libraries, see
    :mod:`spectrain._arrays.products`.
    """
    large = a.dtype == torch.float32 and a.device.type == "cpu" and min(*a.shape, *b.shape[-2:]) >= LEAST
    return large and onednn_is_faster()


def _sizes(ends: Tensor) -> list[int]:
    """Rows of each group. All views of one tensor are made by one call: with many groups they are what a loop costs."""
    last = ends.tolist()
    return [end - start for start, end in zip([0, *last], last, strict=False)]


def _make_dense(matrices: Tensor) -> Tensor:
    """Stacked matrices or their transposes as they are; any other layout, such as an expanded one, copied."""
    return matrices if matrices.is_contiguous() or matrices.mT.is_contiguous() else matrices.contiguous()
