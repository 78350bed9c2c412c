"""CUR from single rows and columns of an expensive similarity: error against the share of entries evaluated.

    python benchmarks/cur_entries.py            # record, and docs/cur.svg
    python benchmarks/cur_entries.py --smoke    # 300 digits, three ranks

The similarity is a Gaussian kernel between two halves of scikit-learn's digits. Peers at the same ranks: rows and
columns drawn uniformly (as ANNCUR does, article 9336) with the same core, the cross core on columns chosen with all
entries, and the best matrix of that rank.
"""

import argparse
from pathlib import Path

import _record
import torch
from sklearn import datasets

from spectrain import lowrank
from spectrain.gallery._drawing import Line, Picture, save


def similarity(count: int) -> torch.Tensor:
    X = torch.tensor(datasets.load_digits().data)[:count]
    queries, items = X[: count // 2], X[count // 2 :]
    return torch.exp(-torch.cdist(queries, items).square() / 1500)


def uniform(A: torch.Tensor, k: int, seed: int) -> float:
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(A.shape[0], generator=draw)[:k], torch.randperm(A.shape[1], generator=draw)[:k]
    found = lowrank.cur(A, rows=rows, columns=columns, core="cross")
    return float(torch.dist(found.dense(), A))


def measured(A: torch.Tensor, ranks: list[int]) -> list[dict]:
    size, s = float(torch.linalg.norm(A)), torch.linalg.svdvals(A)
    rows = []
    for k in ranks:
        found = lowrank.cross(lambda i: A[i], lambda j: A[:, j], tuple(A.shape), rank=k)
        drawn = sorted(uniform(A, k, seed) for seed in range(9))[4]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    args = parser.parse_args()
    A = similarity(300 if args.smoke else 1797)
    rows = measured(A, [5, 10, 20] if args.smoke else [5, 10, 20, 40, 60, 80, 120])
    body = _record.table(list(rows[0]), ([f"{value:.3g}" for value in row.values()] for row in rows))
    body += f"\n\nKernel of {A.shape[0]} x {A.shape[1]} digits, errors relative to its norm; uniform: median of 9."
    last = rows[-1]
    claim = (
        f"CUR from rows and columns: error {last['cross']:.2g} from {100 * last['share']:.0f} % of the entries, "
        f"{last['uniform']:.2g} by uniform ones"
    )
    print(_record.write("cur_entries", claim=claim, body=body, data={"rows": rows}, folder=args.out))
    if not args.smoke:
        shares, drawn = [row["share"] for row in rows], [row["share drawn"] for row in rows]
        lines = (
            Line(shares, [row["cross"] for row in rows], name="cross", color=0),
            Line(drawn, [row["uniform"] for row in rows], name="uniform rows and columns", color=1),
            Line(drawn, [row["all entries seen"] for row in rows], name="all entries seen", style="dash", color=2),
            Line(drawn, [row["best"] for row in rows], name="best of that rank", style="dash", color=5),
        )
        picture = Picture("An expensive similarity", "share of entries evaluated", "relative error", lines, log="y")
        save(picture, Path(__file__).parents[1] / "docs" / "cur.svg")


if __name__ == "__main__":
    main()
