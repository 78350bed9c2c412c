"""Powers of definite matrices by products only: the coupled iteration of articles 11158 and 11175."""

import functools
import math

import torch
from torch import Tensor

from spectrain.approx import Schedule, root_schedule
from spectrain.matfun._complex import unit_size
from spectrain.matfun._scale import power_of_two

_LOWER = 1e-4  # smallest eigenvalue, relative to the largest, that the schedules are designed for, as in the articles


def coupled_root(P: Tensor, r: int, s: int, *, steps: int) -> Tensor:
    """Return P^(s/r) of matrices (b, n, n) by ``steps`` steps, in float32, or float64 where P is.

    Start from P / c, c >= the largest eigenvalue, and G = I; repeat W = q(P), G <- G W^t, P <- W^r P, where q(x^r) x is
    the best polynomial for 1. Then P goes to I, W^r to P^-1 and G to P^(-t/r); a power s > 0 is P^j times that
    with j = ceil(s/r) and t = j r - s.
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
    G = torch.linalg.matrix_power(A, whole)
    for q in _coefficients(r, steps) if t else ():
        W = _polynomial(A, q)
        G = G @ torch.linalg.matrix_power(W, t)
        A = torch.linalg.matrix_power(W, r) @ A
    scale = (c.double() * power_of_two(k, torch.float64)[:, None, None]) ** (s / r)
    return G * scale.to(narrow)


def _polynomial(A: Tensor, q: tuple[float, ...]) -> Tensor:
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    Q = q[-1] * eye
    for c in reversed(q[:-1]):
        Q = c * eye + A @ Q
    return Q


@torch.compiler.assume_constant_result
def _coefficients(r: int, steps: int) -> list[tuple[float, ...]]:
    return [tuple(float(c) for c in p.coefficients) for p in _designed(r, steps).polynomials]


@functools.lru_cache(maxsize=64)
def _designed(r: int, steps: int) -> Schedule:
    return root_schedule(r, -1, lower=_LOWER, steps=steps)
