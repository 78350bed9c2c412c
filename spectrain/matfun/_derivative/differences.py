"""The derivative of any function of singular values or eigenvalues, by divided differences.

In the singular basis the change of U f(S) V^T is A * herm(M) + B * skew(M) for M = U^H D V, with A the divided
differences of f between s_i and s_j and B those between s_i and -s_j, f continued as an odd function, and f(s) / s
times the part of D that leaves the span of V (Daleckii and Krein, 1965; Higham, Functions of Matrices, 3.2). For V f(L)
V^H it is A * (V^H D V). No difference of large numbers is formed, at ties neither. Real and complex.
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.embedding import adjoint

Values: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]  # singular values (b, k) -> f(s) and f'(s)
Rule: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Second: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def widen(X: Tensor) -> Tensor:
    """Return X in float64, or complex128 where it is complex."""
    return X.to(torch.complex128 if X.is_complex() else torch.float64)


def change_of_odd(X: Tensor, D: Tensor, values: Values) -> Tensor:
    """Return the change of U f(S) V^H when X = U S V^H, (b, m, n), changes by D."""
    if X.shape[-2] > X.shape[-1]:
        return change_of_odd(adjoint(X), adjoint(D), values).mH.contiguous()
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    f, slope = values(S)
    turned = adjoint(U) @ D
    M = turned @ adjoint(Vh)
    A, B = differences(S, f, slope), _opposite(S, f, slope)
    inside = (A * (0.5 * (M + adjoint(M))) + B * (0.5 * (M - adjoint(M)))) @ Vh
    ratio = B.diagonal(dim1=-2, dim2=-1)[..., None]
    return U @ (inside + ratio * (turned - M @ Vh))


def change_of_symmetric(P: Tensor, D: Tensor, pairs: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the change of V f(L) V^H when P = V L V^H, (b, n, n), changes by D; ``pairs(L)`` are the differences."""
    L, V = torch.linalg.eigh(0.5 * (P + adjoint(P)))
    M = adjoint(V) @ (0.5 * (D + adjoint(D))) @ V
    return V @ (pairs(L) * M) @ adjoint(V)


def differences(
    S: Float[Tensor, "b k"], f: Float[Tensor, "b k"], slope: Float[Tensor, "b k"]
) -> Float[Tensor, "b k k"]:
    """Return (f_i - f_j) / (s_i - s_j), and the slope where the two cannot be told apart."""
    gap, size = S[:, :, None] - S[:, None, :], S.abs()[:, :, None] + S.abs()[:, None, :]
    tied = gap.abs() <= 8 * torch.finfo(S.dtype).eps * size
    between = 0.5 * (slope[:, :, None] + slope[:, None, :])
    return torch.where(tied, between, (f[:, :, None] - f[:, None, :]) / torch.where(tied, 1.0, gap))


def _opposite(S: Tensor, f: Tensor, slope: Tensor) -> Float[Tensor, "b k k"]:
    """Return (f_i + f_j) / (s_i + s_j), and the slope at zero for 0 / 0."""
    total = S[:, :, None] + S[:, None, :]
    none = total == 0
    return torch.where(none, slope[:, :, None], (f[:, :, None] + f[:, None, :]) / torch.where(none, 1.0, total))


class Differential(torch.autograd.Function):
    """rule(X, D), the change of a function of X, differentiable with respect to D, and to X where ``second`` says how.

    ``second(X, D, g)`` is the gradient of <change(X, D), g> with respect to X. It is symmetric in D, g and the
    direction, so that it serves backward and forward mode.
    """

    @staticmethod
    def forward(X: Tensor, D: Tensor, rule: Rule, second: Second) -> Tensor:
        return rule(widen(X), widen(D)).to(D.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.rule, ctx.second = inputs[2:]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        X, D = ctx.saved_tensors
        gX = ctx.second(widen(X), widen(D), widen(g)).to(X.dtype) if ctx.needs_input_grad[0] else None
        gD = Differential.apply(X, g, ctx.rule, ctx.second).to(D.dtype) if ctx.needs_input_grad[1] else None
        return gX, gD, None, None

    @staticmethod
    def jvp(ctx: Any, dX: Tensor | None, dD: Tensor | None, *_: None) -> Tensor:
        X, D = ctx.saved_tensors
        change = torch.zeros_like(D) if dD is None else Differential.apply(X, dD, ctx.rule, ctx.second)
        return change if dX is None else change + ctx.second(widen(X), widen(D), widen(dX)).to(D.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, X: Tensor, D: Tensor, *rest: Any) -> tuple[Tensor, int]:
        X, D = (
            T.expand(info.batch_size, *T.shape) if d is None else T.movedim(d, 0)
            for d, T in zip(in_dims[:2], (X, D), strict=True)
        )
        return Differential.apply(X.flatten(0, 1), D.flatten(0, 1), *rest).unflatten(0, D.shape[:2]), 0


def differentiable_once(name: str) -> Second:
    """Return a ``second`` for functions whose second derivative is not offered: a RuntimeError that says so."""

    def second(X: Tensor, D: Tensor, g: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{name} can be differentiated once with respect to the matrix, not twice; msign, polar, mstep and mclip "
            "can be differentiated any number of times"
        )

    return second


class Once(torch.autograd.Function):
    """A derivative that depends on X in a way that is not differentiated further: asking for it is an error."""

    @staticmethod
    def forward(derivative: Tensor, X: Tensor, name: str) -> Tensor:
        return derivative.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.name = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> NoReturn:
        return differentiable_once(ctx.name)(g, g, g)  # type: ignore[misc]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        return differentiable_once(ctx.name)(*[tangents[0]] * 3)  # type: ignore[misc]

    @staticmethod
    def vmap(info: Any, in_dims: tuple, derivative: Tensor, X: Tensor, name: str) -> tuple[Tensor, int]:
        wide = (
            T.expand(info.batch_size, *T.shape) if d is None else T.movedim(d, 0)
            for d, T in zip(in_dims[:2], (derivative, X), strict=True)
        )
        return Once.apply(*wide, name), 0
