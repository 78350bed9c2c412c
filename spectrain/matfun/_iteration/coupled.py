"""Powers of definite matrices by products only: the coupled iteration of articles 11158 and 11175."""

import functools
import math

import torch
from jaxtyping import Bool
from torch import Tensor

from spectrain._arrays.graphs import constant_in_graphs
from spectrain._arrays.scale import power_of_two, recording
from spectrain.approx import Schedule, root_schedule
from spectrain.matfun._entry.input import unit_size

_LOWER = 1e-4  # smallest eigenvalue, relative to the largest, that the schedules are designed for, as in the articles


_RUNAWAY = 0.25  # an eigenvalue below minus this has run away; what rounding makes of a zero one is small before


def coupled_root(P: Tensor, r: int, s: int, *, steps: int) -> Tensor:
    """Return P^(s/r) of matrices (b, n, n) by ``steps`` steps, in float32, or float64 where P is.

    Start from P / c, c >= the largest eigenvalue, and G = I; repeat W = q(P), G <- G W^t, P <- W^r P, where q(x^r) x is
    the best polynomial for 1. Then P goes to I, W^r to P^-1 and G to P^(-t/r); a power s > 0 is P^j times that
    with j = ceil(s/r) and t = j r - s.

    A negative eigenvalue runs away, and a zero one stands where rounding put it. ValueError where P is not positive
    definite to rounding; for s > 0, where such an eigenvalue gives about zero, only once it has run away. Cholesky
    factorizations at the start and at the end tell, and the norm at the end. In a recorded graph, where no value can be
    read, the results of such matrices are NaN.
    """
    r, s = r // math.gcd(r, s), s // math.gcd(r, s)
    narrow = torch.float64 if P.dtype in (torch.float64, torch.complex128) else torch.float32
    unit, k = unit_size(P, "mroot")
    unit = unit.to(torch.promote_types(narrow, torch.complex64) if P.is_complex() else narrow)
    whole = max(0, -(-s // r))
    t = whole * r - s
    square = unit @ unit
    bound = torch.linalg.matrix_norm(square).sqrt()  # Schatten-4: at most n^(1/4) too large
    c = (torch.where(bound > 0, bound, 1.0) * (1 + 2.0**-16)).to(narrow)[:, None, None]
    A = unit / c
    schedule, top = _coefficients(r, steps, narrow == torch.float32) if t else ([], 1.0)
    noise = math.sqrt(max(1, A.shape[-1])) * max(torch.finfo(narrow).eps, torch.finfo(P.dtype).eps)
    # On either side of the noise: between the two nothing is known yet, and for s > 0 the end decides.
    positive, nearly = _above(A, noise), _above(A, -noise)
    G = torch.linalg.matrix_power(A, whole)
    for q in schedule:
        W = _polynomial(A, q)
        G = G @ torch.linalg.matrix_power(W, t)
        A = torch.linalg.matrix_power(W, r) @ A
    scale = (c.double() * power_of_two(k, torch.float64)[:, None, None]) ** (s / r)
    # The identity has the norm n^(1/2); a negative eigenvalue has grown past any multiple of it.
    arrived = (torch.linalg.matrix_norm(A) <= 2 * top * max(1, A.shape[-1]) ** 0.5) & G.isfinite().all(-1).all(-1)
    still = nearly & _above(torch.where(arrived[:, None, None], A, 0.0), -_RUNAWAY)
    return _check(G * scale.to(narrow), arrived & (positive | still if s > 0 else positive), steps)


def _above(A: Tensor, floor: float) -> Bool[Tensor, " b"]:
    """Whether all eigenvalues are above the floor: whether A less the floor has a Cholesky factor."""
    return torch.linalg.cholesky_ex(A - floor * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device))[1] == 0


def _check(root: Tensor, sound: Bool[Tensor, " b"], steps: int) -> Tensor:
    """Return the roots, or say for which matrices of the batch they are none."""
    if recording():
        return torch.where(sound[:, None, None], root, torch.nan)
    if not bool(sound.all()):
        bad = (~sound).nonzero()[:, 0].tolist()
        raise ValueError(
            f"mroot: P is not positive definite to rounding, or not for steps={steps}, each of which amplifies it "
            f"({len(bad)} of {len(root)} matrices, the first at index {bad[0]}): add a multiple of the identity, or "
            "leave steps= out, which counts small eigenvalues as zero"
        )
    return root


def _polynomial(A: Tensor, q: tuple[float, ...]) -> Tensor:
    """Return q(A) by Horner's rule; the first step of it is no product."""
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    if len(q) == 1:
        return (q[0] * eye).expand_as(A)
    Q = q[-1] * A + q[-2] * eye
    for c in reversed(q[:-2]):
        Q = c * eye + A @ Q
    return Q


@constant_in_graphs
def _coefficients(r: int, steps: int, narrow: bool) -> tuple[list[tuple[float, ...]], float]:
    """Return those of every q, and the largest eigenvalue that P can have at the end."""
    schedule = _design(r, steps, narrow)
    return [tuple(float(c) for c in p.coefficients) for p in schedule.polynomials], schedule.intervals[-1][1] ** r


@functools.lru_cache(maxsize=64)
def _design(r: int, steps: int, narrow: bool) -> Schedule:
    return root_schedule(r, -1, lower=_LOWER, steps=steps, dtype="float32" if narrow else "float64")
