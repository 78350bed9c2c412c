"""The lower end that msign(steps=k) is designed for, beside the best one for each kind of matrix.

    python -m benchmarks.matfun.msign_lower --checkpoints RUN/checkpoints/STEP [...]

Without checkpoints the matrices are Gaussian; with them the momenta of the trainer stand beside.

For every set of matrices of one shape and every k: the root mean square polar error of the default, the least one over
a grid of lower ends a factor of 1.25 apart, and their ratio. Both count as at least 0.02 in the ratio: what lies below
no training notices. Last, the factor by which one step more changes the error of the default, where that is largest,
errors below the rounding of the dtype (8 u in bfloat16, 1e-4 in float32) counting as that.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks.matfun.msign_targets import momenta
from spectrain import matfun
from spectrain.matfun._iteration.design import design_lower
from spectrain.testing import exact_msign, relative_error

NOTICED = 0.02
ROUNDING = {torch.bfloat16: 8 * 2**-8, torch.float32: 1e-4}
GAUSSIAN = ((96, 96), (96, 160), (256, 256), (256, 704), (768, 768), (512, 2048))


def sets(checkpoints: Sequence[Path], most: int, shapes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Batches of matrices of one shape, by name."""
    g = torch.Generator().manual_seed(0)
    found = {f"Gaussian {m} x {n}": torch.randn(4 if m < 500 else 1, m, n, generator=g) for m, n in shapes}
    for path in checkpoints:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for X in momenta(path, 1000):
            by_shape.setdefault(X.shape, []).append(X)
        for (m, n), Xs in by_shape.items():
            found[f"momenta {m} x {n}, {path.parents[1].name}"] = torch.stack(Xs[:most])
    return found


def error(X: Tensor, truth: Tensor, dtype: torch.dtype, steps: int, lower: float | None) -> float:
    """The root mean square of the polar errors."""
    Y = matfun.msign(X, steps=steps, lower=lower, dtype=dtype)
    return float(relative_error(Y, truth).square().mean().sqrt())


def compare(X: Tensor, dtype: torch.dtype, steps: range, reach: int) -> list[dict[str, Any]]:
    """One row for each number of steps."""
    truth, rows = exact_msign(X), []
    for k in steps:
        default = design_lower(k, dtype)
        grid = {default * 1.25**i: math.nan for i in range(-reach, reach + 1) if default * 1.25**i < 0.6}
        grid = {low: error(X, truth, dtype, k, low) for low in grid}
        best = min(grid, key=lambda low: grid[low])
        mine = error(X, truth, dtype, k, None)
        ratio = max(mine, NOTICED) / max(grid[best], NOTICED)
        rows.append({"steps": k, "default": mine, "best": grid[best], "best lower": best, "ratio": ratio})
    return rows


def measure(
    *,
    checkpoints: tuple[Path, ...] = (),
    most: int = 4,
    shapes: tuple[tuple[int, int], ...] = GAUSSIAN,
    steps: range = range(1, 9),
    reach: int = 8,
) -> Found:
    """``most`` matrices of a shape from a checkpoint; ``reach`` lower ends on either side of the default."""
    body, found, more = [], [], []
    for dtype in (torch.bfloat16, torch.float32):
        table = []
        for name, X in sets(checkpoints, most, shapes).items():
            rows = compare(X, dtype, steps, reach)
            found += [{"matrices": name, "dtype": str(dtype)[6:], **row} for row in rows]
            errors = [max(row["default"], ROUNDING[dtype]) for row in rows]
            more.append(max(b / a for a, b in itertools.pairwise(errors)))
            cells = (f"{r['default']:.3g} / {r['best']:.3g}" for r in rows)
            table.append([name, *cells, f"{max(r['ratio'] for r in rows):.2f}", f"{more[-1]:.2f}"])
        head = ("error of the default / of the best", *(f"{k} steps" for k in steps), "largest ratio", "a step more")
        lowers = ", ".join(f"{design_lower(k, dtype):.3g}" for k in steps)
        body.append(f"## {str(dtype)[6:]}: default lower ends {lowers}\n\n" + _record.table(head, table))
        print(body[-1], flush=True)
    figures = {"ratio": max(row["ratio"] for row in found), "more": max(more)}
    return Found(rows=found, body="\n\n".join(body), figures=figures)


if __name__ == "__main__":
    main(
        "msign_lower",
        "msign(steps=k) has at most {ratio:.2f} times the error of the best design for each kind of matrix, and one "
        "step more changes it by a factor of {more:.2f} at most",
        measure,
        smoke={"shapes": ((16, 16),), "steps": range(2, 4), "reach": 1},
    )
