"""Heads divided by their rms and rotated, in one go: what every query and key goes through before they meet."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._attention.rotary import Turns
from spectrain.nn._eager import by_formula
from spectrain.nn._rms_norm import one_over_root


def normalise_and_turn(x: Tensor, turns: Turns, *, eps: float | None) -> Tensor:
    r"""Rotate ``x / sqrt(mean(x^2) + eps)``, ``(batch, heads, length, dim)``, by ``turns`` of all its coordinates.

    Computed in float32 at least and rounded once; the dtype is that of ``x``. With R the rotation, y the result, r one
    over the root and g the gradient of y: ``dx = r R^T (g - y mean(g y))``, since a rotation keeps products.
    Source: Su et al., RoFormer, arXiv 2104.09864; the gradient is that of RMSNorm.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = turns.factors(wide)
    eps = torch.finfo(wide).eps if eps is None else eps
    if not by_formula(x):
        return _by_operations(x, cos, sin, eps)
    if not torch.is_grad_enabled():
        return _by_rule(x, cos, sin, eps)[0]
    out: Tensor = _NormaliseAndTurn.apply(x, cos, sin, eps)
    return out


def _by_operations(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """The same for whoever wants derivatives of derivatives, or a graph."""
    pairs = F.rms_norm(x.to(cos.dtype), x.shape[-1:], eps=eps).unflatten(-1, (1, 2, -1))
    return torch.addcmul(pairs * cos, pairs.flip(-2), sin).flatten(-3).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    sign = -1 if back else 1
    if x.shape[-2] == 1:  # fewer operations, which is all that one row costs
        pairs = x.unflatten(-1, (1, 2, -1))
        return (pairs * cos).addcmul_(pairs.flip(-2), sin, value=sign).flatten(-3)
    out, half = torch.empty_like(x), x.shape[-1] // 2
    cos, sin = cos[..., 0, 0, :], sin[..., 0, 1, :]
    first, second = x[..., :half], x[..., half:]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin, value=sign)
    return out


def _by_rule(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and one over the root."""
    y = x if x.shape[-2] == 1 else torch.empty(x.shape, dtype=cos.dtype).copy_(x)  # heads of a row lie together
    y = y.to(cos.dtype)
    r = one_over_root(y, eps)
    out = _rotate(y * r if y is x else y.mul_(r), cos, sin, back=False)
    return out if out.dtype == x.dtype else out.to(x.dtype), r


class _NormaliseAndTurn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        out, r = _by_rule(x, cos, sin, eps)
        ctx.save_for_backward(x, out, r, cos, sin)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, out, r, cos, sin = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this, and r is no function of x any more
            again = _by_operations(x, cos, sin, ctx.eps)
            return (*torch.autograd.grad(again, x, gradient, create_graph=True), None, None, None)
        y, g = out.to(cos.dtype), torch.empty(x.shape, dtype=cos.dtype).copy_(gradient[0])
        mean = (g * y).sum(-1, keepdim=True).div_(-x.shape[-1])
        of_x = _rotate(g.addcmul_(y, mean).mul_(r), cos, sin, back=True)
        return of_x.to(x.dtype), None, None, None
