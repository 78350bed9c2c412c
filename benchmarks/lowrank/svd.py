"""Randomized SVD against scikit-learn and torch: time at equal error, on fast, slow and stepped spectra.

    python -m benchmarks.lowrank.svd    # 2000 x 2000 and 4000 x 1000, float32; record, and docs/svd.svg

For each number of power steps of a peer, ours is the cheapest call whose error is not larger (an excess over the best
error below 1e-6 counts as equal: that is rounding in float32). Errors are those of the returned factors against the
float64 matrix, relative to the best of that rank. Times are ratios of calls that alternate, medians over repetitions.
"""

import time
from collections.abc import Callable

import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate, seconds
from spectrain import lowrank
from spectrain._drawing import Line, Picture, save

RANK, OVERSAMPLE, EQUAL = 30, 10, 1e-6
FAST, SLOW, STEP = "fast, 2^(-i/5)", "slow, i^(-1/2)", "step, 1 then 0.1"
Factors = tuple[Tensor, Tensor, Tensor]


def spectra(n: int) -> dict[str, Tensor]:
    """Singular values by name."""
    i = torch.arange(1, n + 1, dtype=torch.float64)
    step = torch.where(i <= RANK, 1.0, 0.1).double()
    return {FAST: 2.0 ** (-i / 5), SLOW: i**-0.5, STEP: step}


def matrix(m: int, n: int, s: Tensor) -> Tensor:
    """A matrix of these singular values with random vectors, in float32."""
    g = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(m, n, generator=g))[0].double()
    V = torch.linalg.qr(torch.randn(n, n, generator=g))[0].double()
    return ((U * s) @ V.mT).float()


def by_sklearn(A: Tensor, steps: int | str) -> Factors:
    found = randomized_svd(A.numpy(), RANK, n_oversamples=OVERSAMPLE, n_iter=steps, random_state=0)
    U, S, Vh = (torch.from_numpy(F) for F in found)
    return U, S, Vh


def by_torch(A: Tensor, steps: int) -> Factors:
    U, S, V = torch.svd_lowrank(A, RANK + OVERSAMPLE, niter=steps)
    return U[:, :RANK], S[:RANK], V[:, :RANK].mT


PEERS: dict[str, Callable[[Tensor], Factors]] = {
    "scikit-learn, auto": lambda A: by_sklearn(A, "auto"),
    "scikit-learn, 4 steps": lambda A: by_sklearn(A, 4),
    "scikit-learn, 2 steps": lambda A: by_sklearn(A, 2),
    "scikit-learn, 1 step": lambda A: by_sklearn(A, 1),
    "torch, 2 steps (default)": lambda A: by_torch(A, 2),
    "torch, 1 step": lambda A: by_torch(A, 1),
    "torch, 4 steps": lambda A: by_torch(A, 4),
}


def ours(A: Tensor, power: int | None) -> Factors:
    U, S, Vh = lowrank.svd(A, rank=RANK, power=power, method="krylov")
    return U, S, Vh


def excess(A: Tensor, factors: Factors, best: float) -> float:
    """The error of the factors over the best, less one."""
    U, S, Vh = (F.double() for F in factors)
    return float(torch.linalg.matrix_norm(A.double() - (U * S) @ Vh)) / best - 1


def why_behind(ratio: float, theirs: float, ours: float, power: int) -> str:
    """What is got for the time where theirs is shorter, or that none of our calls reaches their error."""
    if ratio >= 1:
        return ""
    if ours > max(theirs, EQUAL):
        return f"excess {ours / max(theirs, EQUAL):.3g} times theirs: no power of ours reaches it"
    less = f"excess {max(theirs, EQUAL) / max(ours, EQUAL):.3g} times smaller, with a proof"
    fewer = f"; {2 * power} products leave more than theirs" if power else ""
    return f"{2 * power + 2} products; {less}{fewer}"


def compare(A: Tensor, best: float, rounds: int) -> list[dict[str, object]]:
    """One row for each peer: errors, which of our calls is equal, and the ratio of times."""
    choices = (0, 1, 2, 3, 4)
    errors = {power: excess(A, ours(A, power), best) for power in choices}
    rows = []
    for name, peer in PEERS.items():
        theirs = excess(A, peer(A), best)
        power = next((p for p in choices if errors[p] <= max(theirs, EQUAL)), choices[-1])
        calls = {"ours": lambda p=power: ours(A, p), "theirs": lambda f=peer: f(A)}
        times = alternate(calls, rounds=rounds, warm=0, clock=time.process_time)
        rows.append(
            {
                "peer": name,
                "their excess": theirs,
                "our power=": power,
                "our excess": errors[power],
                "our ms": 1e3 * min(times["ours"]),
                "their ms": 1e3 * min(times["theirs"]),
                "time, theirs / ours": times.ratio("theirs", "ours"),
                "where behind, why": why_behind(times.ratio("theirs", "ours"), theirs, errors[power], power),
            }
        )
    default = lambda: lowrank.svd(A, rank=RANK)  # noqa: E731
    rows.append(
        {
            "peer": "(our default, for itself)",
            "their excess": None,
            "our power=": "auto",
            "our excess": excess(A, tuple(default()), best),
            "our ms": 1e3 * min(seconds(default, clock=time.process_time) for _ in range(rounds)),
            "their ms": None,
            "time, theirs / ours": None,
            "where behind, why": "",
        }
    )
    return rows


def curve(name: str, values: list[float], style: str, color: int) -> Line:
    """Excesses after 2, 4, 6, ... products; below rounding they end on the floor of the figure."""
    products = [2 * q + 2 for q in range(len(values))]
    return Line(products, [max(value, 1e-13) for value in values], name=name, style=style, color=color)


def picture() -> Picture:
    """Excess over the best error after the same products, both from 30 + 10 random columns, in float64."""
    lines, powers = [], range(6)
    for color, (name, s) in enumerate(list(spectra(600).items())[:2]):
        A, short = matrix(800, 600, s).double(), name.split(",")[0]
        best = float(torch.linalg.svdvals(A)[RANK:].norm())
        found = [lowrank.svd(A, rank=RANK, power=q, oversample=OVERSAMPLE, method="krylov") for q in powers]
        krylov = [excess(A, tuple(f), best) for f in found]
        iteration = [excess(A, by_sklearn(A, q), best) for q in powers]
        lines.append(curve(f"block Krylov, {short}", krylov, "line", color))
        lines.append(curve(f"subspace iteration, {short}", iteration, "dash", color))
    title, x, y = "Rank 30 of an 800 x 600 matrix", "products with A or its adjoint", "error / best - 1"
    return Picture(title, x, y, tuple(lines), log="y")


def measure(
    *,
    sizes: tuple[tuple[int, int], ...] = ((2000, 2000), (4000, 1000)),
    decay: tuple[str, ...] = (FAST, SLOW, STEP),
    rounds: int = 7,
) -> Found:
    """Matrices of these sizes, with each ``decay`` of singular values."""
    body, found = [], []
    for m, n in sizes:
        for name in decay:
            s = spectra(n)[name]
            A, case = matrix(m, n, s), f"{m} x {n}, {name}"
            rows = compare(A, float(s[RANK:].norm()), rounds)
            body += [f"## {case}", "", _record.show(rows), ""]
            found += [{"case": case, **row} for row in rows]
            print(case, flush=True)
    ratios = {f"{r['case']}, {r['peer']}": r["time, theirs / ours"] for r in found if r["time, theirs / ours"]}
    body.append(
        "`excess` is the error over the best of that rank, less one; below 1e-6 it is rounding and counts as equal."
    )
    summary = {"wins": sum(r > 1 for r in ratios.values()), "all": len(ratios)}
    summary |= {"least": min(ratios.values()), "most": max(ratios.values())}
    pages = {"svd.svg": lambda path: save(picture(), path)}
    return Found(rows=found, body="\n".join(body), figures=summary, ratios=ratios, pages=pages)


if __name__ == "__main__":
    main(
        "svd",
        "Randomized SVD, float32: faster at equal error in {wins} of {all} comparisons, ratios from {least:.2f} to "
        "{most:.1f}",
        measure,
        smoke={"sizes": ((120, 80),), "rounds": 1},
        check={"sizes": ((4000, 1000),), "decay": (STEP,), "rounds": 3},
    )
