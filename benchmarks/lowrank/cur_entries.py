"""CUR from single rows and columns of an expensive similarity: error against the share of entries evaluated.

    python -m benchmarks.lowrank.cur_entries    # record, and docs/cur.svg

The similarity is a Gaussian kernel between two halves of scikit-learn's digits. Peers at the same ranks: rows and
columns drawn uniformly (as ANNCUR does, article 9336) with the same core, the cross core on columns chosen with all
entries, and the best matrix of that rank.
"""

from collections.abc import Sequence

import torch
from sklearn import datasets

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain import lowrank
from spectrain._drawing import Line, Picture, save


def similarity(count: int) -> torch.Tensor:
    X = torch.tensor(datasets.load_digits().data)[:count]
    queries, items = X[: count // 2], X[count // 2 :]
    return torch.exp(-torch.cdist(queries, items).square() / 1500)


def uniform_error(A: torch.Tensor, k: int, seed: int) -> float:
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(A.shape[0], generator=draw)[:k], torch.randperm(A.shape[1], generator=draw)[:k]
    found = lowrank.cur(A, rows=rows, columns=columns, core="cross")
    return float(torch.dist(found.dense(), A))


def compare(A: torch.Tensor, ranks: Sequence[int]) -> list[dict]:
    size, s = float(torch.linalg.norm(A)), torch.linalg.svdvals(A)
    rows = []
    for k in ranks:
        found = lowrank.cross(lambda i: A[i], lambda j: A[:, j], tuple(A.shape), rank=k)
        drawn = sorted(uniform_error(A, k, seed) for seed in range(9))[4]
        seen = float(lowrank.cur(A, rank=k, core="cross").error)
        rows.append(
            {
                "rank": k,
                "share": found.evaluated / A.numel(),
                "share drawn": k * sum(A.shape) / A.numel(),
                "cross": float(torch.dist(found.dense(), A)) / size,
                "estimate": float(found.error) / size,
                "uniform": drawn / size,
                "all entries seen": seen / size,
                "best": float(s[k:].norm()) / size,
            }
        )
    return rows


def picture(rows: list[dict]) -> Picture:
    """Errors against the share of entries that were evaluated."""
    shares, drawn = [row["share"] for row in rows], [row["share drawn"] for row in rows]
    lines = (
        Line(shares, [row["cross"] for row in rows], name="cross", color=0),
        Line(drawn, [row["uniform"] for row in rows], name="uniform rows and columns", color=1),
        Line(drawn, [row["all entries seen"] for row in rows], name="all entries seen", style="dash", color=2),
        Line(drawn, [row["best"] for row in rows], name="best of that rank", style="dash", color=5),
    )
    return Picture("An expensive similarity", "share of entries evaluated", "relative error", lines, log="y")


def measure(*, digits: int = 1797, ranks: tuple[int, ...] = (5, 10, 20, 40, 60, 80, 120)) -> Found:
    """Every rank on the kernel of so many digits."""
    A = similarity(digits)
    rows = compare(A, ranks)
    body = f"{_record.show(rows)}\n\nKernel of {A.shape[0]} x {A.shape[1]} digits, errors relative to its norm; "
    body += "uniform: median of 9."
    last = rows[-1]
    return Found(
        rows=rows,
        body=body,
        figures={"error": last["cross"], "share": last["share"], "uniform": last["uniform"]},
        pages={"cur.svg": lambda path: save(picture(rows), path)},
    )


if __name__ == "__main__":
    main(
        "cur_entries",
        "CUR from rows and columns: error {error:.2g} from {share:.0%} of the entries, {uniform:.2g} by uniform ones",
        measure,
        smoke={"digits": 100, "ranks": (3, 6)},
    )
