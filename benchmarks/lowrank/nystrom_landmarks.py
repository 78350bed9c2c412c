"""Nystrom approximation of a kernel: what is left of the trace, by how the landmarks were chosen.

    python benchmarks/nystrom_landmarks.py            # record, and docs/nystrom.svg
    python benchmarks/nystrom_landmarks.py --smoke    # 300 digits, two counts

The kernel is Gaussian, on scikit-learn's digits and on a tight cluster with outliers, which uniform sampling tends to
miss and pivoted Cholesky follows one by one. Peers at equal counts: scikit-learn's Nystroem (uniform), pivoted Cholesky
(always the largest diagonal entry of the rest), and the best matrix of that rank. Medians of nine draws.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import _record
import numpy as np
import torch
from sklearn import datasets
from sklearn.kernel_approximation import Nystroem

from spectrain import lowrank
from spectrain.gallery._drawing import Line, Picture, save


def clouds(count: int) -> dict[str, tuple[torch.Tensor, float]]:
    """Points and the gamma of their kernel, by name."""
    draw = torch.Generator().manual_seed(0)
    few = count // 20
    parts = (0.3 * torch.randn(count - few, 4, generator=draw), 30 * torch.randn(few, 4, generator=draw))
    digits = torch.tensor(datasets.load_digits().data)[:count]
    return {"cluster and outliers": (torch.cat(parts).double(), 0.5), "digits": (digits, 1 / 1500)}


def gaussian(gamma: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda A, B: torch.exp(-gamma * torch.cdist(A, B).square())


def pivoted(K: torch.Tensor, k: int) -> float:
    """The trace that pivoted Cholesky leaves, by the textbook's loop."""
    rest, F = K.diagonal().clone(), torch.zeros(len(K), k, dtype=K.dtype)
    for j in range(k):
        i = int(rest.argmax())
        F[:, j] = (K[:, i] - F[:, :j] @ F[i, :j]) / rest[i].sqrt()
        rest = (rest - F[:, j].square()).clamp_min(0)
    return float(rest.sum())


def sklearn_rest(X: torch.Tensor, gamma: float, k: int, seed: int) -> float:
    made = Nystroem(kernel="rbf", gamma=gamma, n_components=k, random_state=seed).fit_transform(X.numpy())
    return float(len(X) - np.square(made).sum())


def measured(X: torch.Tensor, gamma: float, counts: list[int]) -> list[dict[str, float]]:
    kernel = gaussian(gamma)
    K = kernel(X, X)
    eigenvalues = torch.linalg.eigvalsh(K)
    rows = []
    for k in counts:
        ours = [lowrank.nystrom(kernel, points=X, rank=k, generator=seed) for seed in range(9)]
        rows.append(
            {
                "landmarks": k,
                "RPCholesky": statistics.median(float(one.error) for one in ours) / len(X),
                "scikit-learn, uniform": statistics.median(sklearn_rest(X, gamma, k, seed) for seed in range(9))
                / len(X),
                "pivoted Cholesky": pivoted(K, k) / len(X),
                "best of that rank": float(eigenvalues[:-k].sum()) / len(X),
                "share of entries": ours[0].evaluations / K.numel(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    args = parser.parse_args()
    counts = [10, 20] if args.smoke else [10, 20, 40, 80, 160, 320]
    found = {name: measured(X, gamma, counts) for name, (X, gamma) in clouds(300 if args.smoke else 1797).items()}
    rows = found["cluster and outliers"]
    names = list(rows[0])
    body = "\n\n".join(
        f"{name.capitalize()}:\n\n" + _record.table(names, ([f"{value:.3g}" for value in row.values()] for row in each))
        for name, each in found.items()
    )
    body += "\n\nTrace of the rest over the trace of the kernel."
    ratios = {name: [row["RPCholesky"] / row["scikit-learn, uniform"] for row in each] for name, each in found.items()}
    claim = "Nystrom: randomly pivoted landmarks leave, of what scikit-learn's uniform ones leave, " + ", ".join(
        f"{min(each):.2f} to {max(each):.2f} ({name})" for name, each in ratios.items()
    )
    print(_record.write("nystrom_landmarks", claim=claim, body=body, data=found, folder=args.out))
    if not args.smoke:
        x = [row["landmarks"] for row in rows]
        lines = tuple(
            Line(
                x, [row[name] for row in rows], name=name, style="dash" if name.startswith("best") else "line", color=c
            )
            for name, c in zip(names[1:5], (0, 1, 2, 5), strict=True)
        )
        picture = Picture(
            "A cluster and outliers: a kernel from a few of its columns",
            "landmarks",
            "trace of the rest",
            lines,
            log="xy",
        )
        save(picture, Path(__file__).parents[1] / "docs" / "nystrom.svg")


if __name__ == "__main__":
    main()
