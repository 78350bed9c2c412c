"""The pseudo-inverse as a limit: the error of (A^T A + eps I)^-1 A^T against eps, in two precisions, beside pinv's.

    python -m benchmarks.lowrank.pinv_limit    # record, and docs/pinv.svg

The truth has singular vectors and values that are known in closed form: A = Q_1 diag(s) Q_2^T of rank 12 in 40 x 24,
s from 1 to 1e-3, orthogonal matrices of the discrete cosine transform.
"""

import numpy as np
import torch
from scipy.fft import dct

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain import lowrank
from spectrain._drawing import Line, Picture, save

CLOSED = "eps / (s^2 + eps)"


def closed_form() -> tuple[torch.Tensor, torch.Tensor, float]:
    """A, its pseudo-inverse, and its smallest nonzero singular value."""
    left, right = (torch.from_numpy(dct(np.eye(n), norm="ortho"))[:, :12] for n in (40, 24))
    s = torch.logspace(0, -3, 12, dtype=torch.float64)
    return left * s @ right.mT, right / s @ left.mT, float(s[-1])


def error(X: torch.Tensor, P: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(X.double() - P, ord=2) / torch.linalg.matrix_norm(P, ord=2))


def limit(A: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.linalg.solve(A.mT @ A + eps * torch.eye(A.shape[1], dtype=A.dtype), A.mT)


def picture(rows: list[dict], ours: dict[str, float]) -> Picture:
    """Errors against eps, and those of pinv as levels."""
    eps = [row["eps"] for row in rows]
    lines = (
        Line(eps, [row["float64"] for row in rows], name="limit, float64", color=0),
        Line(eps, [row["float32"] for row in rows], name="limit, float32", color=1),
        Line(eps, [row[CLOSED] for row in rows], name=CLOSED, style="dash", color=5),
        Line([eps[0], eps[-1]], [ours["float64"]] * 2, name="pinv, float64", style="dash", color=0),
        Line([eps[0], eps[-1]], [ours["float32"]] * 2, name="pinv, float32", style="dash", color=1),
    )
    return Picture("The pseudo-inverse as a limit", "eps", "relative error", lines, log="xy")


def measure(*, points: int = 53) -> Found:
    """So many values of eps."""
    A, P, least = closed_form()
    rows = [
        {
            "eps": eps,
            "float64": error(limit(A, eps), P),
            "float32": error(limit(A.float(), eps), P),
            CLOSED: eps / (least**2 + eps),
        }
        for eps in np.logspace(-14, -1, points).tolist()
    ]
    ours = {str(kind)[6:]: error(lowrank.pinv(A.to(kind), rtol=1e-5), P) for kind in (torch.float64, torch.float32)}
    body = _record.show(rows) + "\n\n" + "; ".join(f"pinv, {name}: {value:.2e}" for name, value in ours.items()) + "."
    best = {f"limit {name}": min(row[name] for row in rows) for name in ours}
    pages = {"pinv.svg": lambda path: save(picture(rows, ours), path)}
    return Found(rows=rows, body=body, figures={**ours, **best}, pages=pages)


if __name__ == "__main__":
    main(
        "pinv_limit",
        "The pseudo-inverse as a limit is at best {limit float64:.1e} wrong in float64 and {limit float32:.1e} in "
        "float32, where pinv is {float64:.1e} and {float32:.1e}",
        measure,
        smoke={"points": 4},
    )
