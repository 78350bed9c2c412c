"""RMSNorm as torch's, whose gradient on a processor takes a third of the passes over memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectrain.nn._eager import by_formula


class RMSNorm(nn.RMSNorm):
    r"""``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension: `torch.nn.RMSNorm`, and the same numbers.

    On a processor torch computes it operation by operation, and its gradient by the derivative of each: about twenty
    passes over ``x``. Here ``r = 1 / sqrt(mean(x^2) + eps)`` is kept. With g the gradient of the output and ``t = g x``

    .. math:: dx = r g w - x (t \cdot w) r^3 / n, \qquad dw = \sum r t,

    where both sums are a matrix times a vector. Derivatives of higher order, forward mode, torch.func, torch.compile,
    other devices and tensors that are spread over ranks take torch's own.

    >>> import torch
    >>> RMSNorm(4)(torch.full((1, 4), 3.0)).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        weight = self.weight
        alike = weight is not None and x.dtype == weight.dtype and x.shape[-1:] == weight.shape
        if not alike or x.dtype not in (torch.float32, torch.float64) or not by_formula(x, weight):
            return super().forward(x)
        eps = _eps(self.eps, x.dtype)
        if not torch.is_grad_enabled():
            return _by_rule(x, weight, eps)[0]
        out: Tensor = _Normalise.apply(x, weight, eps)
        return out


def _eps(eps: float | None, dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if eps is None else eps


def _by_rule(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and one over the root."""
    r = one_over_root(x, eps)
    return (x * r).mul_(weight), r


def one_over_root(x: Tensor, eps: float) -> Tensor:
    """Return 1 / (mean(x^2) + eps)^(1/2) over the last dimension, which stays, by one pass over ``x``."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.full_like(norm, eps).addcmul_(norm, norm, value=1 / x.shape[-1]).rsqrt_()


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, r = _by_rule(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this, and r is no function of x any more
            out = F.rms_norm(x, weight.shape, weight, ctx.eps)
            wanted = [t for t, needed in zip((x, weight), ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None)
        with torch.autocast("cpu", enabled=False):
            g, x, r = (part.reshape(-1, part.shape[-1]) for part in (gradient[0], x, r))
            t = g * x
            along = torch.mv(t, weight).unsqueeze(-1)
            of_x = (g * weight).mul_(r).addcmul_(x, along.mul_(r.pow(3)), value=-1 / x.shape[-1])
            return of_x.view(gradient[0].shape), torch.mv(t.mT, r[:, 0]), None
