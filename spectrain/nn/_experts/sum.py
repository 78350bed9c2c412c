"""The weighted sum of experts in one pass forward and one backward, a few experts at a time.

Laid out as whole tensors, the values between the products of a mixture of experts do not fit into a cache: on a CPU,
writing and reading them took as long as the products. Here gathering, products, gates and adding up run block by block
of experts, and of what lies between only the inputs of the gates are kept for the backward pass.

Under torch.compile both passes are custom operators, whose shapes follow from those of their inputs.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.nn._experts import products

CACHED = 2**20  # numbers that the work on a block may hold: 4 MiB in float32


def experts_sum(
    x: Float[Tensor, "tokens width"],
    token: Int[Tensor, " pairs"],
    weight: Float[Tensor, "pairs 1"],
    ends: Int[Tensor, " experts"],
    both: Float[Tensor, "experts twice width"],
    down: Float[Tensor, "experts width hidden"],
    *,
    normalised: bool = False,
) -> Float[Tensor, "tokens width"]:
    """``out[t]``: the sum of ``weight[p] * expert(x[t])`` over the pairs p of token t.

    Pairs are sorted by expert, those of expert e ending before ``ends[e]``; ``both`` holds its gate matrix above its up
    matrix. Differentiable to every order; only the first derivative has the fast pass.
    """
    if torch.compiler.is_compiling():
        out: Tensor = forward_operator(x, token, weight, ends, both, down, normalised)[0]
        return out
    eager: Tensor = _ExpertsSum.apply(x, token, weight, ends, both, down, normalised)
    return eager


def compose_products(
    x: Tensor, token: Tensor, weight: Tensor, ends: Tensor, both: Tensor, down: Tensor, *, normalised: bool
) -> Tensor:
    """The same as a composition of differentiable functions: what higher derivatives go through."""
    gate, up = products.rows(x.index_select(0, token), both, ends).chunk(2, dim=1)
    out = products.rows(F.silu(gate) * up, down, ends)
    out = F.rms_norm(out, (out.shape[1],)) if normalised else out
    return torch.zeros_like(x).index_add(0, token, out * weight)


class _Block(NamedTuple):
    """Experts that are computed together, their pairs, and the ends of each one's among them."""

    experts: slice
    pairs: slice
    ends: Tensor


def _blocks(ends: Tensor, numbers: int) -> Iterator[_Block]:
    """Neighbouring experts while a block, of ``numbers`` a pair, stays in a cache; all at once on other devices."""
    if ends.device.type != "cpu":
        yield _Block(slice(None), slice(None), ends)
        return
    first = start = 0
    last = ends.tolist()
    for expert, end in enumerate(last):
        following = last[min(expert + 1, len(last) - 1)]
        if expert == len(last) - 1 or (following - start) * numbers > CACHED:
            yield _Block(slice(first, expert + 1), slice(start, end), ends[first : expert + 1] - start)
            first, start = expert + 1, end


def forward(
    x: Tensor, token: Tensor, weight: Tensor, ends: Tensor, both: Tensor, down: Tensor, normalised: bool
) -> tuple[Tensor, Tensor]:
    """The sum, and what the backward pass needs besides the inputs: gate and up of each pair."""
    width, hidden = down.shape[1:]
    out, inner = torch.zeros_like(x), x.new_empty(len(token), 2 * hidden)
    for experts, pairs, within in _blocks(ends, width + 3 * hidden):
        at, gate_up = token[pairs], inner[pairs]
        products.rows_into(gate_up, x.index_select(0, at), both[experts], within)
        gated = F.silu(_dense(gate_up[:, :hidden]), inplace=True).mul_(gate_up[:, hidden:])
        if not normalised:  # the narrower side to weigh
            gated.mul_(weight[pairs])
        value = products.rows_into(None, gated, down[experts], within)
        if normalised:
            value = F.rms_norm(value, (width,)).mul_(weight[pairs])
        out.index_add_(0, at, value)
    return out, inner


def backward(
    grad: Tensor,
    x: Tensor,
    token: Tensor,
    weight: Tensor,
    ends: Tensor,
    both: Tensor,
    down: Tensor,
    inner: Tensor,
    normalised: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in ``x``, ``weight``, ``both`` and ``down``."""
    width, hidden = down.shape[1:]
    in_x, in_weight = torch.zeros_like(x), torch.zeros_like(weight)
    in_both, in_down = torch.empty_like(both), torch.empty_like(down)
    for experts, pairs, within in _blocks(ends, 2 * width + 5 * hidden):
        at, w, d = token[pairs], weight[pairs], down[experts]
        gate, up = _dense(inner[pairs, :hidden]), inner[pairs, hidden:]
        along = grad.index_select(0, at)
        opened = F.silu(gate)
        gated = opened * up
        if normalised:
            along, in_weight[pairs] = _norm_gradients(products.rows_into(None, gated, d, within), along, w)
        in_gated = products.rows_into(None, along, d.mT, within)
        if not normalised:
            torch.sum(in_gated * gated, dim=1, keepdim=True, out=in_weight[pairs])
            gated.mul_(w)
            in_gated.mul_(w)
        products.outer_into(in_down[experts], along, gated, within)
        in_inner = torch.empty_like(inner[pairs])
        torch.mul(in_gated, opened, out=in_inner[:, hidden:])
        in_inner[:, :hidden] = torch.ops.aten.silu_backward(in_gated.mul_(up), gate, grad_input=gate)
        products.outer_into(in_both[experts], in_inner, x.index_select(0, at), within)
        in_x.index_add_(0, at, products.rows_into(None, in_inner, both[experts].mT, within))
    return in_x, in_weight, in_both, in_down


def _dense(half: Tensor) -> Tensor:
    """A copy without gaps: of rows that end within a vector of the processor silu takes up to six times as long."""
    return half.clone(memory_format=torch.contiguous_format)


def _norm_gradients(value: Tensor, along: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``weight * rms_norm(value)`` in value and weight."""
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    factor = (wide.square().mean(dim=1, keepdim=True) + torch.finfo(value.dtype).eps).rsqrt()
    direction = wide * factor
    in_weight = (along * direction).sum(dim=1, keepdim=True)
    in_direction = along * weight
    radial = (in_direction * direction).mean(dim=1, keepdim=True)
    return (factor * (in_direction - direction * radial)).to(value.dtype), in_weight.to(value.dtype)


class _ExpertsSum(torch.autograd.Function):
    """Both passes in eager execution."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        out, inner = forward(*inputs)
        *tensors, ctx.normalised = inputs
        ctx.save_for_backward(*tensors, inner)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: derivatives of derivatives are wanted
            return _graph_of_gradients(grad, ctx.saved_tensors[:-1], ctx.normalised, ctx.needs_input_grad)
        operands = (grad.contiguous(), *ctx.saved_tensors, ctx.normalised)
        in_x, in_weight, in_both, in_down = backward(*operands)
        return in_x, None, in_weight, None, in_both, in_down, None


def _graph_of_gradients(
    grad: Tensor, inputs: Sequence[Tensor], normalised: bool, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    out = compose_products(*inputs, normalised=normalised)
    leaves = [tensor for tensor, needed in zip(inputs, wanted, strict=False) if needed]
    found = iter(torch.autograd.grad(out, leaves, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)


_OPERANDS = "Tensor x, Tensor token, Tensor weight, Tensor ends, Tensor both, Tensor down"
forward_operator = torch.library.custom_op(
    "spectrain::experts_sum", forward, mutates_args=(), schema=f"({_OPERANDS}, bool normalised) -> (Tensor, Tensor)"
)
backward_operator = torch.library.custom_op(
    "spectrain::experts_sum_backward",
    backward,
    mutates_args=(),
    schema=f"(Tensor grad, {_OPERANDS}, Tensor inner, bool normalised) -> (Tensor, Tensor, Tensor, Tensor)",
)


@forward_operator.register_fake
def _(x: Tensor, token: Tensor, weight: Tensor, ends: Tensor, both: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(len(token), both.shape[1])


@backward_operator.register_fake
def _(grad: Tensor, x: Tensor, token: Tensor, weight: Tensor, ends: Tensor, both: Tensor, down: Tensor, *_: Any) -> Any:
    return tuple(map(torch.empty_like, (x, weight, both, down)))


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.normalised = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    in_x, in_weight, in_both, in_down = backward_operator(grad.contiguous(), *ctx.saved_tensors, ctx.normalised)
    return in_x, None, in_weight, None, in_both, in_down, None


forward_operator.register_autograd(_backward, setup_context=_set_up)
