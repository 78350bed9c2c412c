"""Small matrices pushed through a schedule with every product rounded: what decides between designs."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from spectrain.approx._polynomial import Polynomial


def round_to(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to nearest, ties to even, in the dtype.

    >>> [float(round_to(np.array([1.0 + 2.0**-8 + e], np.float32), "bfloat16")[0]) for e in (0.0, 2.0**-12)]
    [1.0, 1.0078125]
    """
    if dtype == "float32":
        return x
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    kept = {"bfloat16": 16, "tfloat32": 13}[dtype]
    bits = x.astype(np.float32).view(np.uint32)
    half = np.uint32((1 << (kept - 1)) - 1) + ((bits >> np.uint32(kept)) & np.uint32(1))
    return ((bits + half) & np.uint32(0xFFFFFFFF << kept & 0xFFFFFFFF)).view(np.float32)


def simulated_error(
    steps: Sequence[Polynomial], low: float, high: float, dtype: str, *, size: int = 48, seeds: Sequence[int] = (2025,)
) -> float:
    """The largest relative Frobenius distance from the polar factor over twelve spectra that fill [low, high].

    Square matrices of this size, one set for each seed; the mean over the seeds, because a difference of a tenth
    between two designs is the luck of one set.
    """
    return float(np.mean([_largest(steps, low, high, dtype, size, seed) for seed in seeds]))


def _largest(steps: Sequence[Polynomial], low: float, high: float, dtype: str, size: int, seed: int) -> float:
    X, polar = _matrices(low / high, dtype, size, seed)
    with np.errstate(all="ignore"):
        for p in (steps[0].scaled(high), *steps[1:]):
            X = _step(p.coefficients, X, dtype)
        errors = np.linalg.norm(X.astype(np.float64) - polar, axis=(1, 2)) / size**0.5
    return float(errors.max()) if np.isfinite(errors).all() else np.inf


@lru_cache(maxsize=64)
def _matrices(low: float, dtype: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounded matrices, one for each spectrum, with their polar factors."""
    generator = np.random.default_rng(seed)
    rows = []
    for s in _spectra(low, size):
        U, V = (np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(2))
        rows.append(round_to(((U * s) @ V.T).astype(np.float32), dtype))
    X = np.stack(rows)
    left, _, right = np.linalg.svd(X.astype(np.float64))
    return X, left @ right


def _spectra(low: float, n: int) -> Iterator[np.ndarray]:
    half = n // 2
    yield np.geomspace(1, low, n)
    yield np.linspace(1, low, n)
    yield np.r_[1.0, np.full(n - 1, low)]
    yield np.r_[np.ones(n - 1), low]
    yield np.maximum((1.0 + np.arange(n)) ** (np.log(low) / np.log(n)), low)
    yield np.r_[1.0, np.geomspace(max(0.5, low), low, n - 1)]
    yield np.r_[1.0, np.geomspace(max(0.25, low), low, n - 1)]
    for upper in (1.0, 0.9, 0.75, 0.5, 0.35):
        yield np.r_[1.0, np.full(half - 1, max(upper, low)), np.full(n - half, low)]


def _step(c: Sequence[float], X: np.ndarray, dtype: str) -> np.ndarray:
    """One odd polynomial of a stack, every intermediate matrix rounded, sums in float32."""
    A = round_to(X @ X.swapaxes(-1, -2), dtype)
    q = np.asarray(c[1:], dtype=np.float32)
    width = min(len(q), 2 if len(q) <= 4 else 3)
    powers = [A]
    for _ in range(width - 1):
        powers.append(round_to(powers[-1] @ A, dtype))
    B = round_to(sum(cj * P for cj, P in zip(q, powers, strict=False)), dtype)
    if len(q) > width:
        high = round_to(sum(cj * P for cj, P in zip(q[width:], powers, strict=False)), dtype)
        B = round_to(B + powers[-1] @ high, dtype)
    return round_to(np.float32(c[0]) * X + B @ X, dtype)
