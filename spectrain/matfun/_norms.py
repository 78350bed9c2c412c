"""The size of a matrix: its spectral norm, enclosed, and how many singular values it seems to have.

The norm has a lower bound by power iteration and an upper one by powers of the Gram matrix; the effective rank needs
no threshold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.finite import locate_errors
from spectrain._arrays.kinds import way_out
from spectrain._arrays.scale import recording, refusal, times_power_of_two, to_unit
from spectrain._arrays.typed import Generic, Held, Ndarray, alike, results
from spectrain.matfun._derivative.differences import Once, widen
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.input import Array, Real, enter
from spectrain.matfun._iteration.plain import gram
from spectrain.matfun._modes import RankKind

_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "stable": lambda s: s.square().sum(-1) / s[..., 0].square(),
    "intrinsic": lambda s: s.sum(-1) / s[..., 0],
    "participation": lambda s: s.sum(-1).square() / s.square().sum(-1),
}
_SQUARINGS = 5  # of the Gram matrix: the bound is the Schatten norm of order 2 * 2**5 = 64


@alike
@locate_errors("X")
def effective_rank(X: Array, *, kind: RankKind = "entropy", power: Real = 1) -> Array:
    """Return an effective rank of X, between 1 and the rank, equal to it where all nonzero singular values are equal.

    ``kind`` is one of (article 10847, kexue.fm/archives/10847), s the singular values:

    - "entropy": exp(H(p)), p = s^power / sum s^power (Roy and Vetterli, EUSIPCO 2007; ``power=2`` in Moonlight);
    - "stable": sum s^2 / max s^2 = ||X||_F^2 / ||X||_2^2 (Rudelson and Vershynin, J. ACM 54, 2007);
    - "intrinsic": sum s / max s = nuclear over spectral norm (Tropp, 2015);
    - "participation": (sum s)^2 / sum s^2.

    A scale changes nothing, a zero matrix gives 0. By singular values in float64, relative error about 1e-15 k; float64
    for float64 input, else float32. Shapes: X (*batch, m, n) real or complex, the result (*batch). Differentiable by
    torch's derivative of singular values, to which an exact zero among them adds nothing. ValueError for another kind
    or a power that is not positive and finite; TypeError and ValueError for what is not a matrix, torch's LinAlgError
    for NaN and infinite entries. Cost: one SVD without vectors.

    >>> [round(float(effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0])), kind=kind)), 6)
    ...  for kind in ("entropy", "stable", "intrinsic", "participation")]
    [2.0, 2.0, 2.0, 2.0]
    """
    if kind != "entropy" and kind not in _KINDS:
        raise ValueError(f'effective_rank: kind must be "entropy", {", ".join(_KINDS)}, got {kind!r}')
    if not 0 < power < float("inf") or (power != 1 and kind != "entropy"):
        raise ValueError(f'effective_rank: power={power} must be positive and finite, and goes with kind="entropy"')
    numbers = way_out(X, "effective_rank")
    X, _ = enter(X, "effective_rank", embed=False)
    if min(X.shape[-2:]) == 0:
        return numbers(torch.zeros(X.shape[:-2], dtype=_answer(X.dtype), device=X.device))
    S = torch.linalg.svdvals(_unit(flat(X)))
    some = S[..., 0] > 0
    S = torch.where(some[..., None], S, 1.0)
    rank = _entropy(S / S[..., :1], power) if kind == "entropy" else _KINDS[kind](S)
    return numbers(torch.where(some, rank, 0.0).to(_answer(X.dtype)).reshape(X.shape[:-2]))


def _unit(X: Tensor) -> Tensor:
    """Return X with its largest entry at 1: an effective rank does not see the scale, squares would."""
    wide = widen(X)
    largest = wide.abs().amax((-2, -1), keepdim=True)
    hidden = recording() or torch._C._are_functorch_transforms_active()  # a graph, or vmap: no value can be read
    if not hidden and not bool(largest.isfinite().all()):
        raise refusal(X, "effective_rank")
    return wide / torch.where(largest > 0, largest, 1.0)


def _answer(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def _entropy(S: Tensor, power: Real) -> Tensor:
    """Return exp(H(p)) for singular values relative to the largest, H = log sum w - sum w log w / sum w, w = s^power.

    Weights that are zero are left out before any power or logarithm: their slope is that of nothing.
    """
    logs = power * torch.where(S > 0, S, 1.0).log()
    weights = torch.where(S > 0, logs.exp(), 0.0)
    total = weights.sum(-1)
    return (total.log() - (weights * logs).sum(-1) / total).exp()


class NormBounds(NamedTuple, Generic[Held]):
    """lower <= ||X||_2 <= upper, one pair for each matrix of the batch."""

    lower: Held
    upper: Held


@results(NormBounds[Tensor], NormBounds[Ndarray], NormBounds[Any])
@locate_errors("X")
def spectral_norm(X: Array) -> NormBounds:
    """Return bounds on the largest singular value: lower <= sigma_max(X) <= upper.

    ``upper`` is the Schatten norm of order 64, ||(X X^T)^32||_F^(1/32): at most k^(1/64) too large, k = min(m, n),
    10 % for k = 512, and less the fewer singular values are near the largest. ``lower`` is the best of ||X v|| / ||v||
    over the span of v, X X^T v and (X X^T)^2 v, v the largest column of (X X^T)^32: a power iteration of that order and
    the Rayleigh quotient of its last three vectors. Everything is computed in float64; bounds on its rounding errors
    are included (Higham, Accuracy and Stability of Numerical Algorithms, 3.5), so that both hold as stated. They come
    back in float64 for float64 input, else in float32, rounded outwards. A zero matrix gives (0, 0).

    Both have the gradient u v^T, with the vectors found for ``lower`` and u = X v / ||X v||: that of sigma_max where it
    is simple, one of its subgradients where it is not. Differentiable once, backward and forward.

    Errors: TypeError and ValueError for what is not a floating matrix (real or complex), ValueError for NaN or infinite
    entries. Cost: k^2 max(m, n) + 5 k^3 multiplications.

    >>> lower, upper = spectral_norm(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> bool(lower <= 3) and bool(upper >= 3) and bool(upper / lower < 1.001)
    True
    """
    numbers = way_out(X, "spectral_norm")
    X, _ = enter(X, "spectral_norm")
    with torch.autocast(X.device.type, enabled=False):
        lower, upper = _differentiable(flat(X))
    return NormBounds(numbers(lower.reshape(X.shape[:-2])), numbers(upper.reshape(X.shape[:-2])))


def _differentiable(X: Tensor) -> tuple[Tensor, Tensor]:
    if not torch.compiler.is_compiling():
        return _Norms.apply(X)[:2]
    lower, upper, u, v = _norms(X.detach())
    along = (u.mT @ X.to(u.dtype) @ v)[:, 0, 0]
    still = (along - along.detach()).to(lower.dtype)  # exactly zero, with the gradient u v^T
    return lower + still, upper + still


class _Norms(torch.autograd.Function):
    """The bounds with the gradient u v^T; in a graph of torch.compile the same is written with products."""

    @staticmethod
    def forward(X: Tensor) -> tuple[Tensor, ...]:
        return _norms(X)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*inputs, *output[2:])
        ctx.save_for_forward(*inputs, *output[2:])

    @staticmethod
    def backward(ctx: Any, of_lower: Tensor, of_upper: Tensor, *_: Tensor) -> Tensor:
        X, u, v = ctx.saved_tensors
        slope = (of_lower + of_upper).to(u.dtype)[:, None, None] * (u @ v.mT)
        return Once.apply(slope.to(X.dtype), X, "spectral_norm")

    @staticmethod
    def jvp(ctx: Any, D: Tensor) -> tuple[Tensor | None, ...]:
        X, u, v = ctx.saved_tensors
        along = (u.mT @ D.to(u.dtype) @ v)[:, 0, 0].to(torch.promote_types(D.dtype, torch.float32))
        along = Once.apply(along, X, "spectral_norm")
        return along, along.clone(), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, X: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        X = X.movedim(in_dims[0], 0)
        parts = _Norms.apply(X.flatten(0, 1))
        return tuple(part.unflatten(0, X.shape[:2]) for part in parts), (0,) * len(parts)


def _norms(X: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the bounds in the dtype of the answer, and u and v as columns in float64."""
    unit, k = to_unit(X.double(), "spectral_norm")
    dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
    below, above, u, v = _enclosure(unit)
    lower, upper = (times_power_of_two(b[:, None, None], k).flatten() for b in (below, above))
    down, up = (torch.tensor(sign * torch.inf, dtype=dtype, device=X.device) for sign in (-1, 1))
    lower = torch.where(lower > 0, torch.nextafter(lower.to(dtype), down), 0.0)
    upper = torch.where(upper > 0, torch.nextafter(upper.to(dtype), up), 0.0)
    return lower.clamp_min(0), upper, u, v


def enclosed_norms(X: Float[Tensor, "b m n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the bounds computed in the dtype of X, whose squares must neither over- nor underflow."""
    return _enclosure(X)[:2]


def _enclosure(X: Float[Tensor, "b m n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if X.shape[-1] == 0 or X.shape[-2] == 0:
        none = X.new_zeros(len(X))
        return none, none.clone(), X.new_zeros(len(X), X.shape[-2], 1), X.new_zeros(len(X), X.shape[-1], 1)
    unit = torch.finfo(X.dtype).eps
    power, sizes = gram(X), []
    for _ in range(_SQUARINGS):
        sizes.append(torch.linalg.matrix_norm(power))
        power = power / torch.where(sizes[-1] > 0, sizes[-1], 1.0)[:, None, None]
        power = power @ power
    bound = torch.linalg.matrix_norm(power) + power.shape[-1] * unit
    for size in reversed(sizes[1:]):
        bound = (size + power.shape[-1] * unit) * bound.sqrt()
    rounding = max(X.shape[-2:]) * unit * torch.linalg.matrix_norm(X).square()
    upper = ((sizes[0] + rounding) * bound.sqrt()).sqrt() * (1 + 16 * unit)
    lower, u, v = _quotient(X, power)
    return lower.clamp(max=upper), upper, u, v


def _quotient(X: Float[Tensor, "b m n"], power: Float[Tensor, "b k k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return max ||X v|| / ||v|| over three vectors of the power method, less its rounding error, with u and v."""
    column = torch.linalg.vector_norm(power, dim=-2).argmax(-1)
    last = power.take_along_dim(column[:, None, None], dim=-1)
    tall = X.shape[-2] > X.shape[-1]
    wide = X.mT if tall else X
    vectors = [last]
    for _ in range(2):
        image = wide @ (wide.mT @ vectors[-1])
        size = torch.linalg.matrix_norm(image, keepdim=True)
        vectors.append(image / torch.where(size > 0, size, 1.0))
    basis = torch.linalg.qr(torch.cat(vectors, -1))[0]
    turned = torch.linalg.svd(wide.mT @ basis, full_matrices=False)[2].mH
    p = basis @ turned[..., :1]
    q = wide.mT @ p
    size = torch.linalg.matrix_norm(q)
    found = size / torch.linalg.matrix_norm(p)
    q = q / torch.where(size > 0, size, 1.0)[:, None, None]
    noise = 2 * sum(X.shape[-2:]) * torch.finfo(X.dtype).eps * torch.linalg.matrix_norm(X)
    return (found - noise).clamp_min(0), *((q, p) if tall else (p, q))
