"""Interpolative decompositions of n x n matrices: time and error beside SciPy's.

    python -m benchmarks.lowrank.id_speed    # half a minute on a quiet machine

Paired runs in turn, medians of ratios. Errors are ||A - A[:, J] Z||_F / ||A||_F in float64, computed here. SciPy's
coefficients are completed to Z by its own function.
"""

import functools
import statistics
from collections.abc import Callable

import numpy as np
import scipy.linalg.interpolative as peer
import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import lowrank


def matrices(n: int) -> dict[str, torch.Tensor]:
    """Random singular vectors with fast, slow and stepped decay."""
    draw = torch.Generator().manual_seed(0)
    few = min(60, n // 4)
    spectra = {
        "fast": torch.logspace(0, -12, min(300, n), dtype=torch.float64),
        "slow": 1 / torch.arange(1, n + 1, dtype=torch.float64),
        "step": torch.cat([torch.ones(few), torch.full((n - few,), 1e-3)]).double(),
    }
    normal = lambda k: torch.randn(n, k, generator=draw, dtype=torch.float64) / n**0.5  # noqa: E731
    return {name: (normal(len(s)) * s) @ normal(len(s)).mT for name, s in spectra.items()}


def scipys(*, rand: bool) -> Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]:
    def run(A: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        order, coefficients = peer.interp_decomp(A.numpy(), k, rand=rand)
        return torch.from_numpy(order[:k].copy()), (order, coefficients)  # type: ignore[return-value]

    return run


METHODS = {
    "spectrain, auto (pivoted QR)": lambda A, k: lowrank.interpolative(A, rank=k),
    "spectrain, randomized": lambda A, k: lowrank.interpolative(A, rank=k, method="randomized"),
    "SciPy, rand=True": scipys(rand=True),
    "SciPy, rand=False": scipys(rand=False),
}


def error(A: torch.Tensor, found: tuple) -> float:
    J, Z = found
    if isinstance(Z, tuple):
        Z = torch.from_numpy(np.ascontiguousarray(peer.reconstruct_interp_matrix(*Z)))
    return float(torch.linalg.norm(A - A[:, J] @ Z) / torch.linalg.norm(A))


OURS = next(iter(METHODS))


def measure(*, n: int = 4000, k: int = 100, rounds: int = 3) -> Found:
    """n x n matrices, k columns."""
    rows: list[dict] = []
    ratios: dict[str, list[float]] = {name: [] for name in METHODS}
    for kind, A in matrices(n).items():
        errors = {name: error(A, run(A, k)) for name, run in METHODS.items()}
        times = alternate({name: functools.partial(run, A, k) for name, run in METHODS.items()}, rounds=rounds, warm=0)
        for name in METHODS:
            ratios[name] += times.ratios(name, OURS)
            row = {"spectrum": kind, "method": name, "relative error": errors[name], "seconds": times.median(name)}
            rows.append(row | {"time / ours": times.ratio(name, OURS)})
    slower = {name: statistics.median(values) for name, values in ratios.items() if name.startswith("SciPy")}
    body = f"{_record.show(rows, 4)}\n\nGoals: 10 times SciPy's rand=False and 3 times rand=True, error no larger. "
    body += "Reached: " + ", ".join(f"{ratio:.1f} ({name})" for name, ratio in slower.items())
    body += ", medians over the three spectra."
    return Found(rows=rows, body=body, figures=slower, data={"ratios": ratios})


if __name__ == "__main__":
    main(
        "id_speed",
        "ID {n} x {n}, k = {k}: {SciPy, rand=False:.1f} times as fast as SciPy's rand=False, {SciPy, rand=True:.1f} "
        "times rand=True",
        measure,
        smoke={"n": 100, "k": 5, "rounds": 1},
        threads=None,
    )
