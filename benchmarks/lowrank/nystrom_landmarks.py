"""Nystrom approximation of a kernel: what is left of the trace, by how the landmarks were chosen.

    python -m benchmarks.lowrank.nystrom_landmarks    # record, and docs/nystrom.svg

The kernel is Gaussian, on scikit-learn's digits and on a tight cluster with outliers, which uniform sampling tends to
miss and pivoted Cholesky follows one by one. Peers at equal counts: scikit-learn's Nystroem (uniform), pivoted Cholesky
(always the largest diagonal entry of the rest), and the best matrix of that rank. Medians of several draws.
"""

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn import datasets
from sklearn.kernel_approximation import Nystroem

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain import lowrank
from spectrain._drawing import Line, Picture, save


def clouds(count: int) -> dict[str, tuple[torch.Tensor, float]]:
    """Points and the gamma of their kernel, by name."""
    draw = torch.Generator().manual_seed(0)
    few = count // 20
    parts = (0.3 * torch.randn(count - few, 4, generator=draw), 30 * torch.randn(few, 4, generator=draw))
    digits = torch.tensor(datasets.load_digits().data)[:count]
    return {"cluster and outliers": (torch.cat(parts).double(), 0.5), "digits": (digits, 1 / 1500)}


def gaussian(gamma: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda A, B: torch.exp(-gamma * torch.cdist(A, B).square())


def pivoted_rest(K: torch.Tensor, k: int) -> float:
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


def compare(X: torch.Tensor, gamma: float, counts: Sequence[int], draws: int) -> list[dict[str, float]]:
    kernel = gaussian(gamma)
    K = kernel(X, X)
    eigenvalues = torch.linalg.eigvalsh(K)
    rows = []
    for k in counts:
        ours = [lowrank.nystrom(kernel, points=X, rank=k, generator=seed) for seed in range(draws)]
        rows.append(
            {
                "landmarks": k,
                "RPCholesky": statistics.median(float(one.error) for one in ours) / len(X),
                "scikit-learn, uniform": statistics.median(sklearn_rest(X, gamma, k, seed) for seed in range(draws))
                / len(X),
                "pivoted Cholesky": pivoted_rest(K, k) / len(X),
                "best of that rank": float(eigenvalues[:-k].sum()) / len(X),
                "share of entries": ours[0].evaluations / K.numel(),
            }
        )
    return rows


def picture(rows: list[dict]) -> Picture:
    """What is left of the trace against the number of landmarks."""
    x, names = [row["landmarks"] for row in rows], list(rows[0])[2:6]
    lines = tuple(
        Line(x, [row[name] for row in rows], name=name, style="dash" if name.startswith("best") else "line", color=c)
        for name, c in zip(names, (0, 1, 2, 5), strict=True)
    )
    title = "A cluster and outliers: a kernel from a few of its columns"
    return Picture(title, "landmarks", "trace of the rest", lines, log="xy")


def measure(*, count: int = 1797, landmarks: tuple[int, ...] = (10, 20, 40, 80, 160, 320), draws: int = 9) -> Found:
    """Kernels of ``count`` points, so many landmarks."""
    found = {name: compare(X, gamma, landmarks, draws) for name, (X, gamma) in clouds(count).items()}
    rows = [{"points": name, **row} for name, each in found.items() for row in each]
    body = f"{_record.show(rows)}\n\nTrace of the rest over the trace of the kernel."
    ratios = {name: [row["RPCholesky"] / row["scikit-learn, uniform"] for row in each] for name, each in found.items()}
    few, digits = ratios.values()
    figures = {"least": min(few), "most": max(few), "least digits": min(digits), "most digits": max(digits)}
    clustered = [row for row in rows if row["points"] == "cluster and outliers"]
    return Found(
        rows=rows, body=body, figures=figures, pages={"nystrom.svg": lambda path: save(picture(clustered), path)}
    )


if __name__ == "__main__":
    main(
        "nystrom_landmarks",
        "Nystrom: randomly pivoted landmarks leave, of what scikit-learn's uniform ones leave, {least:.2f} to "
        "{most:.2f} (cluster and outliers), {least digits:.2f} to {most digits:.2f} (digits)",
        measure,
        smoke={"count": 100, "landmarks": (5, 10), "draws": 1},
    )
