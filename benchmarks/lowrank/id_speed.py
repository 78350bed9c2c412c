"""Interpolative decompositions of 4000 x 4000 matrices, k = 100: time and error beside SciPy's.

    python benchmarks/id_speed.py            # writes a record; half a minute on a quiet machine
    python benchmarks/id_speed.py --smoke    # 400 x 400, k = 20

Paired runs in turn, medians of ratios. Errors are ||A - A[:, J] Z||_F / ||A||_F in float64, computed here. SciPy's
coefficients are completed to Z by its own function.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import _record
import numpy as np
import scipy.linalg.interpolative as peer
import torch

from spectrain import lowrank


def matrices(n: int) -> dict[str, torch.Tensor]:
    """Random singular vectors with fast, slow and stepped decay."""
    draw = torch.Generator().manual_seed(0)
    spectra = {
        "fast": torch.logspace(0, -12, 300, dtype=torch.float64),
        "slow": 1 / torch.arange(1, n + 1, dtype=torch.float64),
        "step": torch.cat([torch.ones(60), torch.full((n - 60,), 1e-3)]).double(),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=_record.Path, default=_record.RECORDS)
    args = parser.parse_args()
    n, k, repeats = (400, 20, 1) if args.smoke else (4000, 100, args.repeats)
    rows, ratios = [], {name: [] for name in METHODS}
    for kind, A in matrices(n).items():
        times: dict[str, list[float]] = {name: [] for name in METHODS}
        errors = {}
        for turn in range(repeats + 1):
            for name, run in METHODS.items():
                start = time.perf_counter()
                found = run(A, k)
                if turn:
                    times[name].append(time.perf_counter() - start)
                else:
                    errors[name] = error(A, found)
        ours = times["spectrain, auto (pivoted QR)"]
        for name in METHODS:
            ratio = [t / o for t, o in zip(times[name], ours, strict=True)]
            ratios[name] += ratio
            rows.append([kind, name, errors[name], statistics.median(times[name]), statistics.median(ratio)])
    body = _record.table(
        ["spectrum", "method", "relative error", "seconds", "time / ours"],
        ([kind, name, f"{e:.6g}", f"{t:.3f}", f"{r:.2f}"] for kind, name, e, t, r in rows),
    )
    slower = {name: statistics.median(values) for name, values in ratios.items()}
    body += "\n\nGoals: 10 times SciPy's rand=False and 3 times rand=True, error no larger. Reached: "
    body += f"{slower['SciPy, rand=False']:.1f} and {slower['SciPy, rand=True']:.1f}, medians over the three spectra."
    claim = (
        f"ID {n} x {n}, k = {k}: {slower['SciPy, rand=False']:.1f} times as fast as SciPy's rand=False, "
        f"{slower['SciPy, rand=True']:.1f} times rand=True"
    )
    data = {"rows": rows, "ratios": ratios}
    print(_record.write("id_speed", claim=claim, body=body, data=data, folder=args.out))


if __name__ == "__main__":
    main()
