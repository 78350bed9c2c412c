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
Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Second: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def widen(X: Tensor) -> Tensor:
    """Return X in float64, or complex128 where it is complex."""
    return X.to(torch.complex128 if X.is_complex() else torch.float64)


def change_of_odd(X: Tensor, D: Tensor, kept: Tensor | None = None, *, values: Values) -> Tensor:
    """Return the change of U f(S) V^H when X = U S V^H, (b, m, n), changes by D, in float64.

    The decomposition is that of ``kept``, as :func:`packed_svd` packs it, where a function has kept it.
    """
    if X.shape[-2] > X.shape[-1]:
        return change_of_odd(adjoint(X), adjoint(D), kept, values=values).mH.contiguous()
    D, k = widen(D), X.shape[-2]
    if kept is None:
        U, S, Vh = torch.linalg.svd(widen(X), full_matrices=False)
    else:
        U, S, Vh = kept[..., :k], kept[..., k].real, kept[..., k + 1 :]
    f, slope = values(S)
    turned = adjoint(U) @ D
    M = turned @ adjoint(Vh)
    A, B = differences(S, f, slope), _opposite(S, f, slope)
    inside = (A * (0.5 * (M + adjoint(M))) + B * (0.5 * (M - adjoint(M)))) @ Vh
    ratio = B.diagonal(dim1=-2, dim2=-1)[..., None]
    return U @ (inside + ratio * (turned - M @ Vh))


def packed_svd(U: Tensor, S: Float[Tensor, "b k"], Vh: Tensor) -> Tensor:
    """Return U, S and V^H of a wide matrix, or of the adjoint of a tall one, side by side."""
    if U.shape[-2] > Vh.shape[-1]:
        U, Vh = adjoint(Vh), adjoint(U)
    return torch.cat([U, S[..., None].to(U.dtype), Vh], -1)


def packed_eigh(L: Float[Tensor, "b n"], V: Tensor) -> Tensor:
    """Return V and L of a symmetric matrix side by side."""
    return torch.cat([V, L[..., None].to(V.dtype)], -1)


def empty_eigh(P: Tensor, keep: bool) -> Tensor:
    """Return memory for what ``packed_eigh`` returns for P (b, n, n), and none of it if nothing is kept."""
    n = P.shape[-1]
    dtype = torch.complex128 if P.is_complex() else torch.float64
    return P.new_empty((len(P), n, n + 1) if keep else (len(P), 0, 0), dtype=dtype)


def change_of_symmetric(
    P: Tensor, D: Tensor, kept: Tensor | None = None, *, pairs: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the change of V f(L) V^H when P = V L V^H, (b, n, n), changes by D; ``pairs(L)`` are the differences.

    V and L are those of ``kept``, side by side, where a function has kept them.
    """
    D = widen(D)
    if kept is None:
        L, V = torch.linalg.eigh(0.5 * (widen(P) + adjoint(widen(P))))
    else:
        V, L = kept[..., :-1], kept[..., -1].real
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
    """rule(X, D, kept), the change of a function of X, differentiable by D, and by X where ``second`` says how.

    ``kept`` is what the function has found about X; None, or empty, where it kept nothing. ``second(X, D, g)`` is the
    gradient of <change(X, D), g> with respect to X. It is symmetric in D, g and the direction, so that it serves
    backward and forward mode.
    """

    @staticmethod
    def forward(X: Tensor, D: Tensor, kept: Tensor | None, rule: Rule, second: Second) -> Tensor:
        return rule(X, D, None if kept is None or kept.numel() == 0 else kept).to(D.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.rule, ctx.second = inputs[3:]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        X, D, kept = ctx.saved_tensors
        gX = ctx.second(widen(X), widen(D), widen(g)).to(X.dtype) if ctx.needs_input_grad[0] else None
        gD = None
        if ctx.needs_input_grad[1]:
            gD = Differential.apply(X, g, kept, ctx.rule, ctx.second).to(D.dtype)
        return gX, gD, None, None, None

    @staticmethod
    def jvp(ctx: Any, dX: Tensor | None, dD: Tensor | None, *_: Tensor | None) -> Tensor:
        X, D, kept = ctx.saved_tensors
        change = torch.zeros_like(D) if dD is None else Differential.apply(X, dD, kept, ctx.rule, ctx.second)
        return change if dX is None else change + ctx.second(widen(X), widen(D), widen(dX)).to(D.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
        given = zip(in_dims[:3], inputs[:3], strict=True)
        wide = (None if T is None else fold(info.batch_size, dim, T) for dim, T in given)
        return Differential.apply(*wide, *inputs[3:]).unflatten(0, (info.batch_size, -1)), 0


def fold(size: int, dim: int | None, T: Tensor) -> Tensor:
    """Return T with the mapped dimension, repeated where there is none, folded into the batch."""
    return (T.expand(size, *T.shape) if dim is None else T.movedim(dim, 0)).flatten(0, 1)


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
