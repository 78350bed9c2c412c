"""Powers P^(s/r) of positive semidefinite matrices, with a residual that is computed from P."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.embedding import adjoint
from spectrain._arrays.finite import locate_errors
from spectrain._arrays.scale import recording, refusal, times_power_of_two
from spectrain._arrays.typed import alike
from spectrain.approx.internal import MOST_STEPS
from spectrain.matfun._derivative.derivative import is_differentiated, spectral_function, will_be_differentiated
from spectrain.matfun._derivative.differences import (
    Differential,
    change_of_symmetric,
    differentiable_once,
    empty_eigh,
    packed_eigh,
)
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.input import (
    Array,
    Real,
    check_rtol,
    check_tolerance,
    enter,
    like,
    real_dtype,
    refuse,
    rounded,
    unit_size,
)
from spectrain.matfun._iteration.coupled import coupled_root
from spectrain.matfun._modes import Side
from spectrain.matfun._proven.semidefinite import Spectrum, error_of_power, spectrum, which_count

_norm = torch.linalg.matrix_norm
_LARGEST = 2**31 - 1  # powers beyond it are 1, 0 or infinite in every dtype


@alike
@locate_errors("P")
def mroot(
    P: Array,
    r: int,
    s: int = 1,
    *,
    times: Array | None = None,
    side: Side = "right",
    tol: Real | None = None,
    steps: int | None = None,
    rtol: Real | None = None,
    out_dtype: torch.dtype | None = None,
) -> Array:
    """Return P^(s/r) for positive semidefinite P, any integers r > 0 and s; or its product with a matrix.

    ``mroot(P, 2)`` is the square root, ``mroot(P, 2, -1)`` its inverse. With ``times=G`` the result is G P^(s/r), or
    P^(s/r) G for ``side="left"``, applied in the eigenbasis: no inverse is formed and rounded. The two-sided
    Q^(-1/2) G P^(-1/2) is ``mroot(Q, 2, -1, times=mroot(P, 2, -1, times=G), side="left")``. Eigenvalues at or below
    rtol times the largest (default (n + 8) eps of float64, or sqrt(n) eps of P's own dtype where that is wider) count
    as zero and give zero, also for s < 0, which makes that the power of the pseudo-inverse.

    ``tol`` (by output dtype 5e-2, 1e-4, 1e-10) bounds the relative Frobenius error of P^(s/r). The bound is the
    residual ||P - V L V^T||, computed from P, times the largest divided difference of x^(s/r) (Higham, Functions of
    Matrices, 3.2), across the cut too. An eigenvalue within its own error of the cut adds the jump there for s > 0; for
    s <= 0 no bound is stated, as for one that may be negative. Where the bound is above tol, a tol that was given is a
    ValueError and the default one a RuntimeWarning.

    ``steps=k`` takes k steps of the coupled iteration of articles 11158 and 11175 (kexue.fm/archives/11175) instead,
    with the best polynomials for eigenvalues in [1e-4, 1] of a bound on the largest: products only, in one graph under
    ``torch.compile``, in float32 or float64. It carries no bound: eigenvalues below 1e-4 arrive with more steps. P must
    be positive definite to rounding, or semidefinite for s > 0 and few steps: else ValueError, told by Cholesky
    factorizations; in a compiled graph such matrices of a batch give NaN.

    Shapes: P (*batch, n, n) real symmetric or complex Hermitian, G (*batch, m, n) or (*batch, n, m). Differentiable
    once, at ties too. TypeError and ValueError for what is not a finite square matrix, ValueError for r < 1, for P that
    differs from its conjugate transpose by more than rounding, for an eigenvalue below minus the rounding noise, for G
    that is not finite, and for a result that its dtype does not hold.
    Cost: one eigendecomposition in float64.

    >>> P = torch.tensor([[16.0, 0.0], [0.0, 81.0]])
    >>> mroot(P, 4, -3).diagonal().mul(216).tolist()
    [27.0, 8.0]
    """
    P, leave = enter(P, "mroot", embed=False)
    _check_request(P, r, s, side, steps, tol, rtol)
    right = None if times is None else _fit(enter(times, "mroot(times=)", embed=False)[0], P, side)
    dtype = like(P if right is None or P.is_complex() else _complex_if(right, P), out_dtype, "mroot")
    check_tolerance(tol, real_dtype(dtype), "mroot")
    if steps is not None:
        return leave(rounded(_by_steps(P, right, r, s, steps, side), dtype, "mroot"))
    options = (r, s, None if tol is None else float(tol), None if rtol is None else float(rtol))
    keep = will_be_differentiated(P)
    if right is None:
        root = _operator(flat(P), *options, keep, dtype)[0]
        return leave(root.reshape(P.shape))
    if torch.compiler.is_compiling() or is_differentiated((P, right)):
        root = _operator(flat(P), *options, keep, torch.promote_types(torch.float64, P.dtype))[0]
        return leave(rounded(_product(root.reshape(P.shape), right, side), dtype, "mroot"))
    L, V = _powers(flat(P), *options, dtype)[1:3]
    return leave(rounded(_apply_power(L, V, flat(right), side), dtype, "mroot").reshape(right.shape))


def _check_request(
    P: Tensor, r: int, s: int, side: str, steps: int | None, tol: Real | None, rtol: Real | None
) -> None:
    if P.shape[-1] != P.shape[-2]:
        raise ValueError(f"mroot: needs square matrices, got shape {tuple(P.shape)}; X.mT @ X is square")
    for name, value in (("r", r), ("s", s)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"mroot: {name} must be an integer, got {value!r}; P^(s/r) of other powers is mapply's")
        if abs(value) > _LARGEST:
            raise ValueError(
                f"mroot: {name} must be at most {_LARGEST:,} in size, got one of {value.bit_length()} bits"
            )
    check_rtol(rtol, "mroot")
    if r < 1:
        raise ValueError(f"mroot: r must be at least 1, got {r}; a negative power is s < 0")
    if side not in ("left", "right"):
        raise ValueError(f'mroot: side must be "left" or "right", got {side!r}')
    if steps is not None and (not 1 <= steps <= MOST_STEPS or tol is not None or rtol is not None):
        raise ValueError(
            f"mroot: steps={steps} must be from 1 to {MOST_STEPS} and takes no tol= or rtol=; it carries no bound"
        )


def _fit(G: Tensor, P: Tensor, side: str) -> Tensor:
    """Return the other factor; refused where it is not finite, unless it belongs to a graph, or does not fit."""
    n = P.shape[-1]
    if not (recording() or torch._C._are_functorch_transforms_active() or bool(G.isfinite().all())):
        raise refusal(G, "mroot(times=)")
    if G.shape[:-2] != P.shape[:-2] or G.shape[-1 if side == "right" else -2] != n:
        raise ValueError(
            f"mroot: times= of shape {tuple(G.shape)} does not fit a power of shape {tuple(P.shape)} on its {side} side"
        )
    return G


def _complex_if(G: Tensor, P: Tensor) -> Tensor:
    """Return what the product with P^(s/r) is like: P, complex where G is."""
    return P.new_empty(0, dtype=torch.promote_types(P.dtype, torch.complex64)) if G.is_complex() else P


def _product(root: Tensor, G: Tensor, side: str) -> Tensor:
    """Return the product in the precision of the root, complex where one of them is."""
    dtype = torch.promote_types(root.dtype, torch.complex64) if G.is_complex() else root.dtype
    root, G = root.to(dtype), G.to(dtype)
    return G @ root if side == "right" else root @ G


def _by_steps(P: Tensor, G: Tensor | None, r: int, s: int, steps: int, side: str) -> Tensor:
    """Return the power, or its product, by the coupled iteration; derivatives are those of the exact power."""

    def compute(batch: Tensor) -> tuple[Tensor]:
        with torch.autocast(batch.device.type, enabled=False):
            if not recording():
                unit, _ = unit_size(batch, "mroot")
                _check_symmetric(unit, 0.5 * (unit + adjoint(unit)), batch.dtype)
            return (coupled_root(batch, r, s, steps=steps),)

    (root,) = spectral_function(flat(P), compute, lambda P, Y, D: _change(P, None, D, r, s, None))
    root = root.reshape(P.shape)
    return root if G is None else _product(root, G, side)


def _powers(
    P: Tensor, r: int, s: int, tol: float | None, rtol: float | None, dtype: torch.dtype
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Tensor, Float[Tensor, " b"]]:
    """Return L and L^(s/r) in the units of P, V and a bound on the relative error of V L^(s/r) V^H, below tol."""
    with torch.autocast(P.device.type, enabled=False):
        unit, k = unit_size(P, "mroot")
        symmetric = 0.5 * (unit + adjoint(unit))
        _check_symmetric(unit, symmetric, P.dtype)
        found = spectrum(symmetric, P.dtype, rtol)
        _check_signs(found)
        image = torch.where(found.keep, torch.where(found.keep, found.L, 1.0) ** (s / r), 0.0)
        bound = error_of_power(found, image, s / r)
        limit = check_tolerance(tol, real_dtype(dtype), "mroot") - torch.finfo(dtype).eps / 2
        _check_bound(bound, found, limit, "the rounding noise" if rtol is None else f"rtol = {rtol:g}", tol is not None)
        powers = torch.where(found.keep, image * torch.exp2(k.double() * (s / r))[:, None], 0.0)
        return times_power_of_two(found.L[..., None], k)[..., 0], powers, found.V, bound


def _noise(n: int, dtype: torch.dtype) -> float:
    """Return the relative size of what rounding can make of the difference of P from its conjugate transpose."""
    return n * max(torch.finfo(torch.float64).eps, torch.finfo(dtype).eps / max(1, n) ** 0.5)


def _check_symmetric(P: Tensor, symmetric: Tensor, dtype: torch.dtype) -> None:
    skew, size = _norm(P - symmetric), _norm(P)
    if bool((skew > 16 * _noise(P.shape[-1], dtype) * size).any()):
        raise ValueError(
            f"mroot: P is not symmetric, ||P - P^T|| / ||P|| = {float((2 * skew / size).max()):.2g}; a power of a "
            "matrix that is not is another function. Pass (P + P.mT) / 2 where rounding made the difference"
        )


def _check_signs(found: Spectrum) -> None:
    if bool(found.negative.any()):
        least = float((found.L / found.L.abs().amax(-1, keepdim=True)).min())
        raise ValueError(
            f"mroot: P is not positive semidefinite, its smallest eigenvalue is {least:.3g} times the largest; add a "
            "multiple of the identity, or use polar(P).H for its absolute value"
        )


def _check_bound(bound: Float[Tensor, " b"], found: Spectrum, tol: Real, cut: str, asked: bool) -> None:
    good = (bound <= tol) & ~found.unsigned
    if bool(good.all()):
        return
    worst = int((~good).nonzero()[0])
    start, end = f"mroot: cannot prove a relative error of {tol:.3g}", "Add a multiple of the identity"
    if found.unsigned[worst]:
        reason = (
            f": eigenvalues of matrix {worst} lie within rounding of minus the rounding noise, below which P is not"
        )
        refuse(f"{start}{reason} positive semidefinite, and float64 cannot tell on which side. {end}", asked=asked)
    elif found.undecided[worst] > 0:
        reason = f": {int(found.undecided[worst])} eigenvalues of matrix {worst} lie within rounding of {cut}, the cut"
        refuse(
            f"{start}{reason} below which they count as zero, and float64 cannot tell on which side. {end}, or move "
            "the cut into a gap with rtol=",
            asked=asked,
        )
    else:
        refuse(
            f"{start}, the bound is {float(bound[worst]):.2g}: eigenvalues reach down to the rounding noise. {end}, "
            "pass rtol= to count small ones as zero, or a larger tol=",
            asked=asked,
        )


def _apply_power(L: Tensor, V: Tensor, G: Tensor, side: str) -> Tensor:
    """Return G V L V^H or V L V^H G."""
    X = G.to(torch.promote_types(V.dtype, torch.complex64) if G.is_complex() else V.dtype)
    V = V.to(X.dtype)
    if side == "right":
        return torch.bmm(torch.bmm(X, V) * L[:, None, :], adjoint(V))
    return torch.bmm(V, L[..., None] * torch.bmm(adjoint(V), X))


def _compute(
    P: Tensor, r: int, s: int, tol: float | None, rtol: float | None, keep: bool, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    L, powers, V, bound = _powers(P, r, s, tol, rtol, dtype)
    kept = packed_eigh(L, V) if keep else empty_eigh(P, keep)
    return rounded(torch.bmm(V * powers[:, None, :], adjoint(V)), dtype, "mroot"), bound, kept


def _fake(P: Tensor, *options: Any) -> tuple[Tensor, ...]:
    *_, keep, dtype = options
    return P.new_empty(P.shape, dtype=dtype), P.new_empty(len(P), dtype=torch.float64), empty_eigh(P, keep)


def _change(P: Tensor, kept: Tensor | None, D: Tensor, r: int, s: int, rtol: float | None) -> Tensor:
    rule = partial(change_of_symmetric, pairs=partial(_pairs, power=s / r, dtype=P.dtype, rtol=rtol))
    return Differential.apply(P, D, kept, rule, differentiable_once("mroot"))


def _pairs(L: Float[Tensor, "b n"], *, power: float, dtype: torch.dtype, rtol: float | None) -> Float[Tensor, "b n n"]:
    """Return (a^p - b^p) / (a - b) for the eigenvalues that count, p a^(p-1) on ties; zero where neither does.

    With t = log(a / b) it is b^(p-1) expm1(p t) / expm1(t), which keeps its digits as a approaches b.
    """
    keep = which_count(L, dtype, rtol)
    x = torch.where(keep, L, 1.0)
    a, b = x[:, :, None], x[:, None, :]
    a, b = torch.maximum(a, b), torch.minimum(a, b)
    t = torch.log1p((a - b) / b)
    both = b ** (power - 1) * torch.where(
        t > 0, torch.expm1(power * t) / torch.expm1(torch.where(t > 0, t, 1.0)), power
    )
    f = torch.where(keep, x**power, 0.0)
    both_count, one_counts = keep[:, :, None] & keep[:, None, :], keep[:, :, None] ^ keep[:, None, :]
    gap = torch.where(one_counts, L[:, :, None] - L[:, None, :], 1.0)
    return torch.where(both_count, both, torch.where(one_counts, (f[:, :, None] - f[:, None, :]) / gap, 0.0))


_operator = Operator(
    "root(Tensor P, int r, int s, float? tol, float? rtol, bool keep, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
    change=lambda P, kept, D, r, s, tol, rtol, keep, dtype: _change(P, kept, D, r, s, rtol),
    keeps=2,
)
