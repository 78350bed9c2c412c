"""msign against torch's Newton-Schulz loop and the exact SVD: polar error, products and time, side by side.

    python benchmarks/msign.py            # writes benchmarks/records/<date>_msign.{md,json}
    python benchmarks/msign.py --smoke    # small sizes, one repetition, for the tests

Every time is a paired ratio: the peers run in turn within each repetition, and the median of the ratios to torch's loop
is what counts, because the machine may be busy. Errors are polar errors against the float64 SVD, over all matrices.
Products are those of the iteration, in units of short x short x long multiplications for square matrices.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from spectrain import approx, matfun
from spectrain.testing import exact_msign, relative_error, zoo

JORDAN = (3.4445, -4.775, 2.0315)
PRODUCTS = {"torch loop, 5 steps bf16": 15, **{f"msign(steps={k})": 3 * k for k in (2, 3, 4, 5)}} | {
    "msign(schedule on [0.2, 1])": 9,
    "msign(schedule on [0.003, 1])": 15,
}


def transformer_shapes(layers: int, width: int, hidden: int) -> list[tuple[int, int]]:
    """Query, key, value, output, gate, up and down of ``layers`` blocks with half as many key heads."""
    block = [(width, width), (width // 2, width), (width // 2, width), (width, width)]
    return [*block, (hidden, width), (hidden, width), (width, hidden)] * layers


def matrices(shapes: list[tuple[int, int]], kind: str, seed: int) -> list[Tensor]:
    """Gaussian matrices, or matrices like momenta: a few strong directions over a weak floor."""
    g = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return [torch.randn(s, generator=g) for s in shapes]
    return [zoo(*s, generator=g)["momentum"].float() for s in shapes]


def methods(dtype: torch.dtype) -> dict[str, Callable[[list[Tensor]], list[Tensor]]]:
    """What is compared, by name; all of them take and give a list of float32 matrices."""
    table: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
        "torch loop, 5 steps bf16": lambda Xs: [_zeropower_via_newtonschulz(X.clone(), JORDAN, 5, 1e-7) for X in Xs]
    }
    for steps in (2, 3, 4, 5):
        table[f"msign(steps={steps})"] = lambda Xs, k=steps: matfun.msign(Xs, steps=k, dtype=dtype)
    for lower in (0.2, 3e-3):
        schedule = approx.sign_schedule(lower, steps=3 if lower == 0.2 else 5, margin=1.03)
        table[f"msign(schedule on [{lower:g}, 1])"] = lambda Xs, s=schedule: matfun.msign(Xs, schedule=s, dtype=dtype)
    table["msign(tol=5e-2)"] = lambda Xs: matfun.msign(Xs, tol=5e-2)
    table["msign()"] = matfun.msign
    table["SVD float32"] = lambda Xs: [_svd(X) for X in Xs]
    return table


def _svd(X: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def compare(Xs: list[Tensor], dtype: torch.dtype, repeats: int) -> list[dict[str, float | int | str]]:
    """Return one row for each method: error, products, milliseconds and the ratio of time to torch's loop."""
    truth = [exact_msign(X) for X in Xs]
    table = methods(dtype)
    times: dict[str, list[float]] = {name: [] for name in table}
    errors = {
        name: [float(relative_error(Y, T)) for Y, T in zip(run(Xs), truth, strict=True)] for name, run in table.items()
    }
    for _ in range(repeats):
        for name, run in table.items():
            start = time.perf_counter()
            run(Xs)
            times[name].append(time.perf_counter() - start)
    base = times["torch loop, 5 steps bf16"]
    return [
        {
            "method": name,
            "products": PRODUCTS.get(name, "-"),
            "polar error, mean": statistics.mean(errors[name]),
            "polar error, max": max(errors[name]),
            "best ms": 1e3 * min(times[name]),
            "time / torch loop": statistics.median(t / b for t, b in zip(times[name], base, strict=True)),
        }
        for name in table
    ]


def peak(dtype: torch.dtype, n: int) -> float:
    """Return the best rate of an n x n product on this machine, in GFLOP/s."""
    A = torch.randn(n, n).to(dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        A @ A
        best = min(best, time.perf_counter() - start)
    return 2e-9 * n**3 / best


def environment(seed: int) -> dict[str, str | int | float]:
    """Return what a reader needs to judge the figures."""
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    rates = {f"peak {str(d)[6:]} GFLOP/s": round(peak(d, 512), 1) for d in dtypes}
    kind = torch.backends.cpu.get_cpu_capability()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {kind}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": seed,
        **rates,
    }


def markdown(record: dict) -> str:
    """Return the record as a page with one table for each case."""
    lines = ["# msign: error and time", "", *(f"- {key}: {value}" for key, value in record["environment"].items()), ""]
    for case, rows in record["cases"].items():
        lines += [f"## {case}", "", "| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
        for row in rows:
            cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run all cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small sizes and one repetition")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records", help="folder of the record")
    parser.add_argument("--repeats", type=int, default=9, help="how often each method is timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = 1 if args.smoke else args.repeats
    sets = {"a small transformer": transformer_shapes(*((1, 64, 176) if args.smoke else (4, 256, 704)))}
    if not args.smoke:
        sets |= {"one 512 x 512": [(512, 512)], "one 512 x 2048": [(512, 2048)]}
    cases: dict[str, list] = {}
    for kind in ("gaussian", "momentum"):
        for name, shapes in sets.items():
            case = f"{name}, {kind}, bfloat16 products"
            cases[case] = compare(matrices(shapes, kind, args.seed), torch.bfloat16, repeats)
            print(case)
            for row in cases[case]:
                print(f"  {row['method']:<34} {row['polar error, mean']:.2g}  x{row['time / torch loop']:.2f}")
    record = {"environment": environment(args.seed), "cases": cases}
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / f"{record['environment']['date']}_msign"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    print(f"written: {stem}.md and .json")


if __name__ == "__main__":
    main()
