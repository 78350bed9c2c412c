"""The lower end that msign(steps=k) is designed for, beside the best one for each kind of matrix.

    python benchmarks/msign_lower.py RUN/checkpoints/STEP [...]   # momenta of the trainer beside Gaussian matrices
    python benchmarks/msign_lower.py --smoke

For every set of matrices of one shape and every k: the root mean square polar error of the default, the least one over
a grid of lower ends a factor of 1.25 apart, and their ratio. Both count as at least 0.02 in the ratio: what lies below
no training notices. Last, the factor by which one step more changes the error of the default, where that is largest,
errors below the rounding of the dtype (8 u in bfloat16, 1e-4 in float32) counting as that.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import _record
import torch
from msign_targets import momenta
from torch import Tensor

from spectrain import matfun
from spectrain.matfun._iteration.design import design_lower
from spectrain.testing import exact_msign, relative_error

NOTICED = 0.02
ROUNDING = {torch.bfloat16: 8 * 2**-8, torch.float32: 1e-4}
GAUSSIAN = ((96, 96), (96, 160), (256, 256), (256, 704), (768, 768), (512, 2048))


def sets(checkpoints: list[Path], most: int, *, smoke: bool) -> dict[str, Tensor]:
    """Batches of matrices of one shape, by name."""
    g = torch.Generator().manual_seed(0)
    shapes = GAUSSIAN[:1] if smoke else GAUSSIAN
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


def measured(X: Tensor, dtype: torch.dtype, steps: range) -> list[dict[str, Any]]:
    """One row for each number of steps."""
    truth, rows = exact_msign(X), []
    for k in steps:
        default = design_lower(k, dtype)
        grid = {default * 1.25**i: math.nan for i in range(-8, 9) if default * 1.25**i < 0.6}
        grid = {low: error(X, truth, dtype, k, low) for low in grid}
        best = min(grid, key=lambda low: grid[low])
        mine = error(X, truth, dtype, k, None)
        ratio = max(mine, NOTICED) / max(grid[best], NOTICED)
        rows.append({"steps": k, "default": mine, "best": grid[best], "best lower": best, "ratio": ratio})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*")
    parser.add_argument("--most", type=int, default=4, help="matrices of a shape from a checkpoint")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = range(2, 4) if arguments.smoke else range(1, 9)
    body, data = [], {}
    for dtype in (torch.bfloat16, torch.float32):
        table, more = [], {}
        for name, X in sets(arguments.checkpoints, arguments.most, smoke=arguments.smoke).items():
            rows = measured(X, dtype, steps)
            data[f"{name}, {dtype}"] = rows
            errors = [max(row["default"], ROUNDING[dtype]) for row in rows]
            more[name] = max(b / a for a, b in itertools.pairwise(errors))
            cells = (f"{r['default']:.3g} / {r['best']:.3g}" for r in rows)
            table.append([name, *cells, f"{max(r['ratio'] for r in rows):.2f}", f"{more[name]:.2f}"])
        head = ("error of the default / of the best", *(f"{k} steps" for k in steps), "largest ratio", "a step more")
        lowers = ", ".join(f"{design_lower(k, dtype):.3g}" for k in steps)
        body.append(f"## {str(dtype)[6:]}: default lower ends {lowers}\n\n" + _record.table(head, table))
        print(body[-1], flush=True)
    if not arguments.smoke:
        claim = "The default design of msign(steps=k) beside the best one for each kind of matrix"
        print(_record.write("msign_lower", claim=claim, body="\n\n".join(body), data=data, folder=arguments.out))


if __name__ == "__main__":
    main()
