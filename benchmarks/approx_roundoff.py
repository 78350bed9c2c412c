"""Measured error of schedules in half precision: ours beside every published recipe, at equal products.

`python benchmarks/approx_roundoff.py` prints the tables of docs/approx.md. Products
are computed in float32 and every product and sum is rounded to the dtype, which is what hardware with float32
accumulation does.
"""

import argparse
import platform
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from spectrain.approx import Schedule, sign_schedule
from spectrain.approx.recipes import RECIPES

SHAPES = ((96, 96), (240, 96))
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def spectra(n: int, low: float) -> dict[str, np.ndarray]:
    """The suite: twelve ways to put n singular values into [low, 1], both ends taken."""
    gauss = np.linalg.svd(np.random.default_rng(0).standard_normal((n, n)), compute_uv=False)
    half = n // 2
    result = {
        "logarithmic": np.geomspace(1, low, n),
        "linear": np.linspace(1, low, n),
        "all small but one": np.r_[1.0, np.full(n - 1, low)],
        "all large but one": np.r_[np.ones(n - 1), low],
        "power law": np.maximum((1.0 + np.arange(n)) ** (np.log(low) / np.log(n)), low),
        "gaussian": np.clip(gauss / gauss[0], low, 1),
        "spike and bulk": np.r_[1.0, np.geomspace(max(0.3, low), low, n - 1)],
    }
    # Two levels: where the upper half sits decides how much noise a first step makes.
    for upper in (1.0, 0.9, 0.75, 0.5, 0.35):
        result[f"halves at {upper} and the least"] = np.r_[1.0, np.full(half - 1, upper), np.full(n - half, low)]
    return result


def matrix(s: np.ndarray, m: int, seed: int) -> torch.Tensor:
    """n x m with singular values s, in float64."""
    generator = torch.Generator().manual_seed(seed)
    n = len(s)
    U = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    V = torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64))[0]
    return (U * torch.from_numpy(s)) @ V.T


def step(c: Sequence[float], X: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """One odd polynomial on X (float32 holding numbers of ``dtype``), every intermediate matrix rounded."""

    def rounded(Y: torch.Tensor) -> torch.Tensor:
        return Y.to(dtype).to(torch.float32)

    A = rounded(X @ X.mT)
    powers = [A]
    width = {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3}[len(c) - 1]
    for _ in range(width - 1):
        powers.append(rounded(powers[-1] @ A))
    q = list(c[1:])
    B = rounded(sum(cj * P for cj, P in zip(q, powers, strict=False)))
    if len(q) > width:
        high = rounded(sum(cj * P for cj, P in zip(q[width:], powers, strict=False)))
        B = rounded(B + powers[-1] @ high)
    return rounded(c[0] * X + B @ X)


def polar_error(schedule: Schedule, X: torch.Tensor, dtype: torch.dtype) -> float:
    """Relative Frobenius distance from the polar factor of the rounded input."""
    X = X.to(dtype).to(torch.float32)
    U, _, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    for p in schedule.polynomials:
        X = step(p.coefficients, X, dtype)
    if not torch.isfinite(X).all():
        return float("inf")
    return float(torch.linalg.matrix_norm(X.double() - U @ Vh) / len(X) ** 0.5)


def worst(schedule: Schedule, low: float, dtype: str, shapes: Sequence[tuple[int, int]] = SHAPES) -> float:
    """The largest error over the suite."""
    errors = []
    for m, n in shapes:
        for seed, s in enumerate(spectra(n, low).values()):
            errors.append(polar_error(schedule, matrix(s, m, seed), DTYPES[dtype]))
    return max(errors)


def published(low: float) -> Iterator[tuple[str, float, Schedule]]:
    """Name, products and schedule of every recipe for matrices of norm 1."""
    for name, recipe in RECIPES.items():
        if name != "aol-4":
            yield name, recipe.products, Schedule(recipe.steps, 1.0, recipe.products, (low, 1.0))


def main() -> None:
    """Print one table for each dtype and least singular value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lower", type=float, nargs="*", default=[1e-3, 1e-2, 1e-1])
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float16"], choices=list(DTYPES))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, shapes {SHAPES}, {len(spectra(9, 0.1))} spectra")
    for dtype in arguments.dtypes:
        for low in arguments.lower:
            theirs = [(name, cost, worst(s, low, dtype)) for name, cost, s in published(low)]
            for cost in sorted({c for _, c, _ in theirs}):
                ours = sign_schedule(low, products=cost, dtype=dtype)
                best = min((e, name) for name, c, e in theirs if c == cost)
                error = worst(ours, low, dtype)
                mark = "<=" if error <= best[0] else "> "
                print(
                    f"{dtype} l={low:g} products={cost:g}: ours {error:.4f} {mark} {best[0]:.4f} {best[1]}", flush=True
                )
            for name, cost, e in theirs:
                print(f"    {name:26s} {cost:4g} {e:.4f}", flush=True)


if __name__ == "__main__":
    main()
