"""The pseudo-inverse as a limit: the error of (A^T A + eps I)^-1 A^T against eps, in two precisions, beside pinv's.

    python benchmarks/pinv_limit.py            # record, and docs/pinv.svg
    python benchmarks/pinv_limit.py --smoke    # few eps

The truth has singular vectors and values that are known in closed form: A = Q_1 diag(s) Q_2^T of rank 12 in 40 x 24,
s from 1 to 1e-3, orthogonal matrices of the discrete cosine transform.
"""

import argparse
from pathlib import Path

import _record
import numpy as np
import torch
from scipy.fft import dct

from spectrain import lowrank
from spectrain.gallery._drawing import Line, Picture, save


def known() -> tuple[torch.Tensor, torch.Tensor, float]:
    """A, its pseudo-inverse, and its smallest nonzero singular value."""
    left, right = (torch.from_numpy(dct(np.eye(n), norm="ortho"))[:, :12] for n in (40, 24))
    s = torch.logspace(0, -3, 12, dtype=torch.float64)
    return left * s @ right.mT, right / s @ left.mT, float(s[-1])


def error(X: torch.Tensor, P: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(X.double() - P, ord=2) / torch.linalg.matrix_norm(P, ord=2))


def regularised(A: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.linalg.solve(A.mT @ A + eps * torch.eye(A.shape[1], dtype=A.dtype), A.mT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    args = parser.parse_args()
    A, P, least = known()
    grid = np.logspace(-14, -1, 4 if args.smoke else 53)
    found = {
        "float64": [error(regularised(A, eps), P) for eps in grid],
        "float32": [error(regularised(A.float(), eps), P) for eps in grid],
        "eps / (s^2 + eps)": [eps / (least**2 + eps) for eps in grid],
    }
    ours = {f"pinv, {A.to(kind).dtype}": error(lowrank.pinv(A.to(kind), rtol=1e-5), P)
            for kind in (torch.float64, torch.float32)}  # fmt: skip
    names = list(found)
    body = _record.table(
        ["eps", *names], [[f"{eps:.1e}", *(f"{found[n][i]:.2e}" for n in names)] for i, eps in enumerate(grid)]
    )
    body += "\n\n" + "; ".join(f"{name}: {value:.2e}" for name, value in ours.items()) + "."
    best = {name: min(found[name]) for name in ("float64", "float32")}
    claim = (
        f"The pseudo-inverse as a limit is at best {best['float64']:.1e} wrong in float64 and {best['float32']:.1e} in "
        f"float32, where pinv is {ours['pinv, torch.float64']:.1e} and {ours['pinv, torch.float32']:.1e}"
    )
    print(
        _record.write("pinv_limit", claim=claim, body=body, data={"eps": list(grid), **found, **ours}, folder=args.out)
    )
    if not args.smoke:
        ends = [float(grid[0]), float(grid[-1])]
        lines = (
            Line(list(grid), found["float64"], name="limit, float64", color=0),
            Line(list(grid), found["float32"], name="limit, float32", color=1),
            Line(list(grid), found["eps / (s^2 + eps)"], name="eps / (s^2 + eps)", style="dash", color=5),
            Line(ends, [ours["pinv, torch.float64"]] * 2, name="pinv, float64", style="dash", color=0),
            Line(ends, [ours["pinv, torch.float32"]] * 2, name="pinv, float32", style="dash", color=1),
        )
        picture = Picture("The pseudo-inverse as a limit", "eps", "relative error", lines, log="xy")
        save(picture, Path(__file__).parents[1] / "docs" / "pinv.svg")


if __name__ == "__main__":
    main()
