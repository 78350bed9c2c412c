"""One node of any kind of graph for a function whose path depends on values.

Under torch.compile it is a custom operator: the graph holds its name, shapes and dtypes, and inside the eager code runs
as ever, so that compiled and eager results are the same. Rules for fake tensors, autograd and vmap come with it. In
eager execution it is an autograd function, which has forward mode too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spectrain.matfun._derivative.derivative import Outputs, spectral_function


class Operator:
    """Y, ... = compute(X, *options) for matrices X of shape (b, m, n), with the derivative of Y.

    ``schema`` lists options and results as torch.library does. ``fake(X, *options)`` returns empty results of the
    right shapes and dtypes, batch first; ``change(X, Y, D, *options)`` is the change of Y when X changes by D, a map of
    D that is its own adjoint. What comes beside Y has no derivative. ``keeps`` says which output is kept for the
    derivative and stands in the place of Y there.
    """

    def __init__(
        self,
        schema: str,
        *,
        compute: Callable[..., Outputs],
        fake: Callable[..., Outputs],
        change: Callable[..., Tensor],
        keeps: int = 0,
    ) -> None:
        self.compute, self.fake, self.change, self.keeps = compute, fake, change, keeps
        self.compiled = _register(schema, self)

    def __call__(self, X: Tensor, *options: Any) -> Outputs:
        if torch.compiler.is_compiling():
            return self.compiled(X, *options)
        return spectral_function(
            X,
            lambda batch: self.run(batch, *options),
            lambda X, Y, D: self.change(X, Y, D, *options),
            keeps=self.keeps,
        )

    def run(self, X: Tensor, *options: Any) -> Outputs:
        """Compute, outside of autocast; an operator may return none of its inputs, and no tensor twice."""
        with torch.autocast(X.device.type, enabled=False):
            parts = self.compute(X, *options)
        return tuple(part.clone() if part.numel() == 0 or part is X else part for part in parts)


def _register(schema: str, node: Operator) -> Any:
    name, signature = schema.split("(", 1)

    def setup(ctx: Any, inputs: tuple, output: Outputs) -> None:
        ctx.save_for_backward(inputs[0], output[node.keeps])
        ctx.options = inputs[1:]

    def backward(ctx: Any, g: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        X, Y = ctx.saved_tensors
        return node.change(X, Y, g, *ctx.options).to(X.dtype), *[None] * len(ctx.options)

    def mapped(info: Any, in_dims: tuple, X: Tensor, *options: Any) -> tuple[Outputs, tuple[int, ...]]:
        X = X.movedim(in_dims[0], 0)
        parts = operator(X.flatten(0, 1), *options)
        return tuple(part.unflatten(0, X.shape[:2]) for part in parts), (0,) * len(parts)

    operator = torch.library.custom_op(f"spectrain::{name}", node.run, mutates_args=(), schema=f"({signature}")
    operator.register_fake(node.fake)
    operator.register_autograd(backward, setup_context=setup)
    operator.register_vmap(mapped)
    return operator
