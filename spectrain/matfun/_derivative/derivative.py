"""Derivatives of functions of singular values, from the input and the result alone: no step of an iteration is kept.

The derivative of X -> U f(S) V^T in a direction D is a linear map of D that is its own adjoint, so that one function,
"the change", serves forward and backward mode. Those of parts of msign are written here, and that of msign itself in
``sign.py``, with Sylvester equations, which can be differentiated again (article 11025, kexue.fm/archives/11025; Kenney
and Laub, SIMAX 12, 1991). Everything runs in float64.

Sylvester equations and pseudo-inverses of symmetric matrices, differentiable any number of times.

Both go by eigenvectors in the dtype given (float64 where derivatives are taken), and keep only their arguments and
results for a backward pass. Denominators at rounding level give zero: those directions have no slope.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from spectrain.matfun._derivative.differences import fold

Outputs: TypeAlias = tuple[Tensor, ...]
Change: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (X, Y, D) -> the change of Y when X changes by D

_TOO_MANY = (
    "matfun: the forward derivative of a forward derivative is not differentiated again; take backward derivatives, "
    "torch.func.grad of torch.func.grad, of which there is any number"
)


def _inverse(D: Float[Tensor, "b k l"]) -> Float[Tensor, "b k l"]:
    """Return 1 / D, and zero where D is below max(k, l) eps of the largest."""
    cut = max(D.shape[-2:]) * torch.finfo(D.dtype).eps * D.abs().amax((-2, -1), keepdim=True)
    large = cut < D.abs()
    return torch.where(large, 1 / torch.where(large, D, 1.0), 0.0)


def sylvester(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return K with A K + K B = C, A (b, k, k) and B (b, l, l) symmetric, C (b, k, l)."""
    return _Sylvester.apply(A, B, C)


def inverse(H: Tensor) -> Tensor:
    """Return the pseudo-inverse of symmetric H (b, k, k), differentiable among matrices of constant rank."""
    return _Inverse.apply(H)


class _Sylvester(torch.autograd.Function):
    @staticmethod
    def forward(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        a, U = torch.linalg.eigh(A)
        b, V = (a, U) if B is A else torch.linalg.eigh(B)
        return U @ ((U.mT @ C @ V) * _inverse(a[:, :, None] + b[:, None, :])) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.same = inputs[0] is inputs[1]
        ctx.save_for_backward(*inputs[:2], output)
        ctx.save_for_forward(*inputs[:2], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        A, B, K = ctx.saved_tensors
        gC = _Sylvester.apply(A, A if ctx.same else B, g)
        return -gC @ K.mT, -K.mT @ gC, gC

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, dB: Tensor | None, dC: Tensor | None) -> Tensor:
        A, B, K = ctx.saved_tensors
        change = torch.zeros_like(K) if dC is None else dC
        change = change if dA is None else change - dA @ K
        change = change if dB is None else change - K @ dB
        return _Sylvester.apply(A, A if ctx.same else B, change)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, int]:
        A, B, C = (fold(info.batch_size, d, T) for d, T in zip(in_dims, (A, B, C), strict=True))
        return _Sylvester.apply(A, B, C).unflatten(0, (info.batch_size, -1)), 0


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(H: Tensor) -> Tensor:
        L, V = torch.linalg.eigh(H)
        return (V * _inverse(L[:, None, :])) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        H, N = ctx.saved_tensors
        return _change_of_inverse(H, N, g)

    @staticmethod
    def jvp(ctx: Any, dH: Tensor) -> Tensor:
        H, N = ctx.saved_tensors
        return _change_of_inverse(H, N, dH)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, H: Tensor) -> tuple[Tensor, int]:
        return _Inverse.apply(fold(info.batch_size, in_dims[0], H)).unflatten(0, (info.batch_size, -1)), 0


def _change_of_inverse(H: Tensor, N: Tensor, D: Tensor) -> Tensor:
    """Return -N D N and, where H is singular, what turns its range (Golub and Pereyra, SINUM 10, 1973)."""
    E = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device) - H @ N
    turned = N @ N @ D @ E
    return turned + E.mT @ D @ N @ N - N @ D @ N


def spectral_function(X: Tensor, compute: Callable[[Tensor], Outputs], change: Change, *, keeps: int = 0) -> Outputs:
    """Return (Y, ...) = compute(X), X of shape (b, m, n), with the derivative of Y given by ``change``.

    What compute returns beside Y has no derivative. X is kept for one, and the output at ``keeps``, which ``change`` is
    given for Y.
    """
    node = _Traced if torch.compiler.is_compiling() else _Eager
    return node.apply(X, compute, change, keeps)


def is_differentiated(matrices: Sequence[Tensor]) -> bool:
    """Whether a derivative of something is being taken here: then each matrix must go through its own node.

    Forward mode and the transforms of torch.func do not show in ``requires_grad``.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(X.requires_grad for X in matrices)


def will_be_differentiated(X: Tensor) -> bool:
    """Whether to keep what only a derivative of a function of X needs; one that is not kept is computed anew."""
    if torch.compiler.is_compiling():
        return torch.is_grad_enabled() and X.requires_grad
    return is_differentiated((X,))


class _Traced(torch.autograd.Function):
    """What torch.compile can trace: backward mode."""

    @staticmethod
    def forward(X: Tensor, compute: Callable[[Tensor], Outputs], change: Change, keeps: int) -> Outputs:
        return tuple(compute(X.detach()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Outputs) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], output[inputs[3]])
        ctx.change = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        X, Y = ctx.saved_tensors
        return ctx.change(X, Y, g).to(X.dtype), None, None, None


class _Eager(_Traced):
    """Forward mode and vmap too."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Outputs) -> None:
        _Traced.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0], output[inputs[3]])
        ctx.others, ctx.dtype = len(output) - 1, output[0].dtype

    @staticmethod
    def jvp(ctx: Any, D: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        X, Y = ctx.saved_tensors
        return _Changed.apply(X, Y, D, ctx.change).to(ctx.dtype), *[None] * ctx.others

    @staticmethod
    def vmap(info: Any, in_dims: tuple, X: Tensor, *rest: Any) -> tuple[Outputs, tuple[int, ...]]:
        X = X.movedim(in_dims[0], 0)
        parts = _Eager.apply(X.flatten(0, 1), *rest)
        return tuple(part.unflatten(0, X.shape[:2]) for part in parts), (0,) * len(parts)


class _Changed(torch.autograd.Function):
    """change(X, Y, D) inside of a forward derivative, where operations of torch's own carry no tangents.

    A forward derivative of a forward derivative would be zero without a word (torch 2.13): here it is that of the
    change. There is no third one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor, Y: Tensor, D: Tensor, change: Change) -> Tensor:
        return change(X, Y, D)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.change = inputs[3]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *torch.func.vjp(ctx.change, *ctx.saved_tensors)[1](g), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        given = zip(ctx.saved_tensors, tangents[:3], strict=True)
        moves = (torch.zeros_like(T) if move is None else move for T, move in given)
        return _ChangedTwice.apply(*ctx.saved_tensors, *moves, ctx.change)


class _ChangedTwice(torch.autograd.Function):
    """The forward derivative of a change."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor, Y: Tensor, D: Tensor, dX: Tensor, dY: Tensor, dD: Tensor, change: Change) -> Tensor:
        return torch.func.jvp(change, (X, Y, D), (dX, dY, dD))[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Nothing is kept: what follows is refused."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> NoReturn:
        raise RuntimeError(_TOO_MANY)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        raise RuntimeError(_TOO_MANY)


def change_of_part(X: Tensor, W: Tensor, D: Tensor) -> Tensor:
    """Return the change of W = U_s V_s^T over some singular values s of X that a gap separates from the others.

    With P = W W^T, Q = I - P, H = X W^T and G = X X^T: within s it is K W as for msign; P turns by L + L^T, where
    Q G Q L - L P G P = -Q dG P; and what V_s gains outside of itself is H^+ (L^T X + P D) (I - W^T W), from the
    symmetry of W^T X.
    """
    if X.shape[-2] > X.shape[-1]:
        return change_of_part(X.mT, W.mT, D.mT).mT.contiguous()
    X, W, wide = X.double(), W.double(), D.double()
    P = W @ W.mT
    Q = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device) - P
    T = X @ W.mT
    H = 0.5 * (T + T.mT)
    inside, outside = P @ X, Q @ X
    C = P @ wide @ W.mT
    turned = wide @ X.mT
    L = sylvester(outside @ outside.mT, -(inside @ inside.mT), -Q @ (turned + turned.mT) @ P)
    gained = L.mT @ outside + P @ wide
    change = sylvester(H, H, C - C.mT) @ W + L @ W + inverse(H) @ (gained - gained @ W.mT @ W)
    return change.to(D.dtype)
