"""soft_topk against LapSum's own torch code: time, sums kept, and what each cannot do.

    python benchmarks/soft_topk.py --lapsum soft_topk.ipynb    # tutorial_notebooks/soft_topk.ipynb of gmum/LapSum
    python benchmarks/soft_topk.py --smoke                     # small, and without the peer

LapSum's function stands in a notebook; its first two cells are executed, none of it is kept here. Times are ratios of
paired runs (the two take turns), the median of them; the failures are those of the inputs named.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _record
import torch

from spectrain import nn

Call = Callable[[torch.Tensor, float, float], torch.Tensor]


def ours(x: torch.Tensor, k: float, temperature: float) -> torch.Tensor:
    return nn.soft_topk(x, k, temperature=temperature)


def lapsum(notebook: Path) -> Call:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in [c for c in cells if c["cell_type"] == "code"][:2]:
        exec("".join(cell["source"]), names)  # the peer's own code, as published

    def call(x: torch.Tensor, k: float, temperature: float) -> torch.Tensor:
        rows = torch.full((x.shape[0],), float(k), dtype=x.dtype)
        return names["soft_top_k"](x, rows, torch.tensor(temperature, dtype=x.dtype), False)

    return call


def seconds(call: Call, x: torch.Tensor, k: float, temperature: float, *, backward: bool) -> float:
    weights = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    scores = x.clone().requires_grad_(backward)
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        p = call(scores, k, temperature)
        if backward:
            (p * weights).sum().backward()
    return time.perf_counter() - start


def paired(calls: dict[str, Call], x: torch.Tensor, k: float, *, backward: bool, repeats: int) -> dict[str, float]:
    times = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            times[name].append(seconds(call, x, k, 1.0, backward=backward))
    out = {name: 1e3 * statistics.median(values[1:]) for name, values in times.items()}  # the first one warms up
    if len(calls) == 2:
        first, second = times.values()
        out["ratio"] = statistics.median(a / b for a, b in zip(first[1:], second[1:], strict=True))
    return out


def kept(call: Call, x: torch.Tensor, k: float, temperature: float) -> str:
    """The largest relative error of the sum, or what happened instead."""
    try:
        total = call(x, k, temperature).double().sum(-1)
    except Exception as error:
        return f"error: {str(error).splitlines()[0][:60] or type(error).__name__}"
    return f"{((total - k).abs() / k).max().item():.1e}"


def twice(call: Call, x: torch.Tensor) -> str:
    scores = x.clone().requires_grad_()
    try:
        (g,) = torch.autograd.grad(call(scores, 3.0, 1.0).square().sum(), scores, create_graph=True)
        torch.autograd.grad(g.square().sum(), scores)
    except Exception as error:
        return f"error: {str(error).splitlines()[0][:60]}"
    return "yes"


def forward_mode(call: Call, x: torch.Tensor) -> str:
    try:
        torch.func.jvp(lambda x: call(x, 3.0, 1.0), (x,), (torch.ones_like(x),))
    except Exception as error:
        return f"error: {str(error).splitlines()[0][:60]}"
    return "yes"


def cases(n: int) -> dict[str, tuple[torch.Tensor, float, float]]:
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(2, n, generator=g, dtype=torch.float64)
    masked = normal.clone()
    masked[:, ::3] = -torch.inf
    return {
        "normal, temperature 1": (normal, n / 10, 1.0),
        "float32, temperature 1": (normal.float(), n / 10, 1.0),
        "temperature 1e-4": (normal, n / 10, 1e-4),
        "temperature 1e-12": (normal, n / 10, 1e-12),
        "temperature 1e6": (normal, n / 10, 1e6),
        "integers (ties), temperature 1e-12": (normal.round(), n / 10, 1e-12),
        "a third at -inf": (masked, n / 10, 1.0),
        "three dimensions": (normal[None], n / 10, 1.0),
        "k = 1e-3": (normal, 1e-3, 1.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lapsum", type=Path, help="soft_topk.ipynb of gmum/LapSum; without it, ours alone")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    calls: dict[str, Call] = {"soft_topk": ours} | ({"LapSum": lapsum(args.lapsum)} if args.lapsum else {})
    g, rows = torch.Generator().manual_seed(1), []
    for n in (100, 1_000) if args.smoke else (1_000, 100_000, 1_000_000):
        for dtype in (torch.float64, torch.float32):
            x = torch.randn(1, n, generator=g, dtype=torch.float64).to(dtype)
            for backward in (False, True):
                repeats = 1 if args.smoke else max(5, args.repeats * 100_000 // max(n, 100_000))
                took = paired(calls, x, n / 10, backward=backward, repeats=repeats)
                rows.append([f"{n:,}", str(dtype)[6:], "and backward" if backward else "forward", *took.values()])
                print(rows[-1], flush=True)
    what = [
        [name, *(kept(call, *case) for call in calls.values())]
        for name, case in cases(100 if args.smoke else 100_000).items()
    ]
    small = torch.randn(2, 9, generator=g, dtype=torch.float64)
    what.append(["second derivative", *(twice(call, small) for call in calls.values())])
    what.append(["forward mode", *(forward_mode(call, small) for call in calls.values())])
    for line in what:
        print(*line, sep="  |  ")
    head = ["n", "dtype", "what", *(f"{name}, ms" for name in calls), *(["time ratio"] if len(calls) == 2 else [])]
    shown = [[*row[:3], *(f"{v:.3g}" for v in row[3:])] for row in rows]
    body = (
        "k = n / 10, temperature 1, one row, one thread. The ratio is the median of paired runs.\n\n"
        + _record.table(head, shown)
        + "\n\nWhat is kept: largest relative error of the sum of p, n = 100,000, k = n / 10; then what can be"
        + " differentiated.\n\n"
        + _record.table(["input", *calls], what)
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.smoke else _record.RECORDS
        _record.write(
            "soft_topk",
            claim="Smooth top-k keeps its sum",
            body=body,
            data={"times": rows, "kept": what},
            folder=folder,
        )


if __name__ == "__main__":
    main()
