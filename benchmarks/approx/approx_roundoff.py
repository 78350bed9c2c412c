"""Measured error of schedules as they round: ours beside every published recipe, at equal products.

`python -m benchmarks.approx.approx_roundoff` writes a record and the table of docs/approx.md. Products are computed in
float32 and every product and sum is rounded to the dtype, which is what hardware with float32 accumulation does.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain.approx import Schedule, sign_schedule
from spectrain.approx.recipes import RECIPES, certify

SHAPES = ((96, 96), (240, 96))
DRAWS = 2
DTYPES = {
    "bfloat16": torch.bfloat16, "float16": torch.float16, "tfloat32": "tfloat32", "float32": torch.float32,
}  # fmt: skip
LOWERS = (1e-3, 1e-2, 1e-1)
RECIPES_OF_NORM_1 = tuple(name for name in RECIPES if name != "aol-4")


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


def round_to(Y: torch.Tensor, dtype: torch.dtype | str) -> torch.Tensor:
    """float32 values rounded to nearest in the dtype, kept in float32; TF32 drops 13 bits."""
    if isinstance(dtype, torch.dtype):
        return Y.to(dtype).to(torch.float32)
    bits = Y.to(torch.float32).view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def step(c: Sequence[float], X: torch.Tensor, dtype: torch.dtype | str) -> torch.Tensor:
    """One odd polynomial on X (float32 holding numbers of ``dtype``), every intermediate matrix rounded."""
    A = round_to(X @ X.mT, dtype)
    powers = [A]
    width = {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3}[len(c) - 1]
    for _ in range(width - 1):
        powers.append(round_to(powers[-1] @ A, dtype))
    q = list(c[1:])
    B = round_to(sum(cj * P for cj, P in zip(q, powers, strict=False)), dtype)
    if len(q) > width:
        high = round_to(sum(cj * P for cj, P in zip(q[width:], powers, strict=False)), dtype)
        B = round_to(B + powers[-1] @ high, dtype)
    return round_to(c[0] * X + B @ X, dtype)


@lru_cache(maxsize=8)
def suite(low: float, dtype: str, shapes: tuple[tuple[int, int], ...], draws: int) -> list[tuple[torch.Tensor, ...]]:
    """For each shape a stack of rounded matrices, wide, with the stack of their polar factors."""
    result = []
    for m, n in shapes:
        stack = [
            matrix(s, m, seed + 100 * draw) for draw in range(draws) for seed, s in enumerate(spectra(n, low).values())
        ]
        X = round_to(torch.stack(stack).to(torch.float32), DTYPES[dtype])
        U, _, Vh = torch.linalg.svd(X.double(), full_matrices=False)
        result.append((X, U @ Vh))
    return result


def worst(
    schedule: Schedule, low: float, dtype: str, shapes: Sequence[tuple[int, int]] = SHAPES, draws: int = DRAWS
) -> float:
    """The largest relative Frobenius distance from the polar factor of the rounded input over the suite."""
    largest = 0.0
    for X, polar in suite(low, dtype, tuple(shapes), draws):
        Y = X
        for p in schedule.polynomials:
            Y = step(p.coefficients, Y, DTYPES[dtype])
        errors = torch.linalg.matrix_norm(Y.double() - polar) / X.shape[-2] ** 0.5
        if not torch.isfinite(errors).all():
            return float("inf")
        largest = max(largest, float(errors.max()))
    return largest


def recipes(low: float, names: Sequence[str] = RECIPES_OF_NORM_1) -> Iterator[tuple[str, float, Schedule]]:
    """Name, products and schedule of recipes for matrices of norm 1."""
    for name in names:
        recipe = RECIPES[name]
        yield name, recipe.products, Schedule(recipe.steps, 1.0, recipe.products, (low, 1.0))


def errors(
    lowers: Sequence[float],
    dtypes: Sequence[str],
    *,
    names: Sequence[str] = RECIPES_OF_NORM_1,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    draws: int = DRAWS,
) -> dict[tuple[str, float], dict[tuple[str, float], float]]:
    """(name or "ours", products) -> error, for each (dtype, least singular value)."""
    cells = {}
    for dtype in dtypes:
        for low in lowers:
            cell = {(name, price): worst(s, low, dtype, shapes, draws) for name, price, s in recipes(low, names)}
            for price in sorted({price for _, price in cell}):
                ours = sign_schedule(low, products=price, dtype=dtype)
                cell["ours", price] = worst(ours, low, dtype, shapes, draws)
                best = min((e, name) for (name, p), e in cell.items() if p == price and name != "ours")
                print(f"{dtype} l={low:g} products={price:g}: ours {cell['ours', price]:.4g}, {best[1]} {best[0]:.4g}")
            cells[dtype, low] = cell
    return cells


def rows(cells: dict[tuple[str, float], dict[tuple[str, float], float]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, by products, ours last of its group."""
    header = ["schedule", "products", "exact, 0.001", *(f"{SHORT[dtype]}, {low:g}" for dtype, low in cells)]
    names = sorted({key for cell in cells.values() for key in cell}, key=lambda k: (k[1], k[0] == "ours"))
    lines = []
    for name, price in names:
        ours = name == "ours"
        exact = (sign_schedule(1e-3, products=price) if ours else certify(name, 1e-3)).error
        values = [exact, *(cell[name, price] for cell in cells.values())]
        best = [
            True,
            *(cell["ours", price] <= min(e for (_, p), e in cell.items() if p == price) for cell in cells.values()),
        ]
        texts = ["overflow" if v == float("inf") else f"{v:.2e}" if v < 1e-3 else f"{v:.4f}" for v in values]
        lines.append(
            [f"**{name}**" if ours else name, f"{price:g}"]
            + [f"**{t}**" if ours and b else t for t, b in zip(texts, best, strict=True)]
        )
    return header, lines


SHORT = {"bfloat16": "bf16", "float16": "fp16", "tfloat32": "tf32", "float32": "fp32"}


def put(table: str, page: Path) -> None:
    """Write the table between the marks of the page."""
    head, rest = page.read_text(encoding="utf-8").split("<!-- measured -->\n", 1)
    page.write_text(
        f"{head}<!-- measured -->\n{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}", encoding="utf-8"
    )


def measure(
    *,
    lowers: tuple[float, ...] = LOWERS,
    dtypes: tuple[str, ...] = tuple(DTYPES),
    names: tuple[str, ...] = RECIPES_OF_NORM_1,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    draws: int = DRAWS,
) -> Found:
    """Every schedule for each least singular value and dtype."""
    cells = errors(lowers, dtypes, names=names, shapes=shapes, draws=draws)
    text = _record.table(*rows(cells))
    behind = [
        f"{dtype} l={low:g} products={price:g}"
        for (dtype, low), cell in cells.items()
        for (name, price), e in cell.items()
        if name == "ours" and e > min(other for (n, p), other in cell.items() if p == price and n != "ours")
    ]
    total = sum(name == "ours" for cell in cells.values() for name, _ in cell)
    body = (
        f"{len(spectra(9, 0.1))} spectra, {draws} matrices each and shape; the largest error of each.\n\n"
        f"{text}\n\nOurs is larger than a published one in: {'; '.join(behind) or 'none'}."
    )
    data = [
        {"dtype": dtype, "lower": low, "schedule": name, "products": price, "error": e}
        for (dtype, low), cell in cells.items()
        for (name, price), e in cell.items()
    ]
    figures = {"ahead": total - len(behind), "cells": total}
    return Found(rows=data, body=body, figures=figures, pages={"approx.md": lambda page: put(text, page)})


if __name__ == "__main__":
    main(
        "approx_roundoff",
        "Schedules as they round: the error of ours is no larger than that of every published one in {ahead} of "
        "{cells} cells",
        measure,
        smoke={"lowers": (0.1,), "dtypes": ("bfloat16",), "names": ("jordan", "you"), "shapes": ((12, 8),), "draws": 1},
    )
