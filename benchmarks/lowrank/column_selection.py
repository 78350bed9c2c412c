"""Column rules on bundled real tables: errors over the best rank-k error, and over the optimum of all subsets.

    python -m benchmarks.lowrank.column_selection    # record, and docs/interpolative.svg

Tables are scikit-learn's, columns standardised. The optimum is by ``exhaustive``, which tests compare with LAPACK over
all subsets. Errors are LAPACK's least squares in float64.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from sklearn import datasets

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain import lowrank
from spectrain._drawing import Line, Picture, save

TABLES = ("breast_cancer", "wine", "diabetes", "iris", "linnerud", "digits")
RULES = (
    "auto",
    "osinsky",
    "greedy",
    "qdeim",
    "deim",
    "pivoted_qr",
    "strong_rrqr",
    "adaptive",
    "randomized",
    "leverage",
)


def load(name: str) -> torch.Tensor:
    X = getattr(datasets, f"load_{name}")().data
    X = X[:, X.std(0) > 0]
    return torch.tensor((X - X.mean(0)) / X.std(0))


def error(A: torch.Tensor, J: torch.Tensor) -> float:
    C = A[:, J].numpy()
    return float(np.linalg.norm(A.numpy() - C @ scipy.linalg.lstsq(C, A.numpy())[0]))


def compare(name: str, ranks: Sequence[int]) -> list[dict]:
    A = load(name)
    s = torch.linalg.svdvals(A)
    rows = []
    for k in (k for k in ranks if k < A.shape[1]):
        row = {"table": name, "k": k, "best rank k": float(s[k:].norm())}
        small = A.shape[1] <= 30 and k <= 6
        row["optimum"] = error(A, lowrank.select_columns(A, k, method="exhaustive")) if small else None
        row |= {rule: error(A, lowrank.select_columns(A, k, method=rule)) for rule in RULES}
        rows.append(row)
    return rows


def picture(rows: list[dict]) -> Picture:
    """Errors over the best rank-k error, the mean of the five small tables, for each k."""
    small = [row for row in rows if row["optimum"]]
    ranks = [k for k in sorted({row["k"] for row in small}) if sum(row["k"] == k for row in small) > 2]

    def mean(rule: str) -> list[float]:
        chosen = ([row[rule] / row["best rank k"] for row in small if row["k"] == k] for k in ranks)
        return [float(np.mean(ratios)) for ratios in chosen]

    names = {"pivoted_qr": "pivoted QR", "qdeim": "Q-DEIM", "greedy": "greedy", "osinsky": "Osinsky", "auto": "default"}
    lines = [Line(ranks, mean(rule), name=label, color=i) for i, (rule, label) in enumerate(names.items())]
    best = Line(ranks, mean("optimum"), name="all subsets", style="points", color=5)
    return Picture("Chosen columns of real tables", "columns k", "error / best rank-k error", (*lines, best))


def measure(*, tables: tuple[str, ...] = TABLES, ranks: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 10, 20)) -> Found:
    """Every rule on every table for every number of columns."""
    rows = [row for name in tables for row in compare(name, ranks)]
    known = [row for row in rows if row["optimum"]]
    worst = {rule: max(row[rule] / row["optimum"] for row in known) for rule in RULES}
    body = _record.table(
        ["table", "k", "best rank k", "optimum", *RULES],
        (
            [row["table"], row["k"], f"{row['best rank k']:.4g}", f"{row['optimum']:.4g}" if row["optimum"] else "-"]
            + [f"{row[rule] / (row['optimum'] or row['best rank k']):.3f}" for rule in RULES]
            for row in rows
        ),
    )
    body += "\n\nRules as ratios to the optimum, where all subsets were tried, else to the best rank-k error. Largest "
    body += "ratio to the optimum: " + ", ".join(f"{rule} {ratio:.3f}" for rule, ratio in worst.items()) + "."
    return Found(
        rows=rows,
        body=body,
        figures={"beyond": worst["auto"] - 1, **worst},
        pages={"interpolative.svg": lambda path: save(picture(rows), path)},
    )


if __name__ == "__main__":
    main(
        "column_selection",
        "Columns of real tables: the default rule is within {beyond:.2%} of the optimum",
        measure,
        smoke={"tables": ("iris", "wine", "linnerud"), "ranks": (1, 2)},
    )
