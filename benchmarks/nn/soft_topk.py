"""soft_topk against LapSum's own torch code: time, sums kept, and what each cannot do.

    python -m benchmarks.nn.soft_topk --lapsum soft_topk.ipynb    # tutorial_notebooks/soft_topk.ipynb of gmum/LapSum

LapSum's function stands in a notebook; its first two cells are executed, none of it is kept here. Times are ratios of
paired runs (the two take turns), the median of them; the failures are those of the inputs named.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import nn

Call = Callable[[torch.Tensor, float, float], torch.Tensor]


def ours(x: torch.Tensor, k: float, temperature: float) -> torch.Tensor:
    return nn.soft_topk(x, k, temperature=temperature)


def load_lapsum(notebook: Path) -> Call:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in [c for c in cells if c["cell_type"] == "code"][:2]:
        exec("".join(cell["source"]), names)  # the peer's own code, as published

    def call(x: torch.Tensor, k: float, temperature: float) -> torch.Tensor:
        rows = torch.full((x.shape[0],), float(k), dtype=x.dtype)
        return names["soft_top_k"](x, rows, torch.tensor(temperature, dtype=x.dtype), False)

    return call


def one_pass(call: Call, x: torch.Tensor, k: float, *, backward: bool) -> Callable[[], None]:
    """One pass forward, and back where that is wanted."""
    weights, scores = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype), x.clone().requires_grad_(backward)

    def run() -> None:
        scores.grad = None
        with torch.set_grad_enabled(backward):
            p = call(scores, k, 1.0)
            if backward:
                (p * weights).sum().backward()

    return run


def compare(calls: dict[str, Call], x: torch.Tensor, *, backward: bool, rounds: int) -> dict[str, float]:
    """Milliseconds of each, and of two the ratio."""
    k = x.shape[-1] / 10
    times = alternate({name: one_pass(call, x, k, backward=backward) for name, call in calls.items()}, rounds=rounds)
    found = {f"{name}, ms": 1e3 * times.median(name) for name in times}
    return found | ({"time ratio": times.ratio(*calls)} if len(calls) == 2 else {})


def error_of_sum(call: Call, x: torch.Tensor, k: float, temperature: float) -> str:
    """The largest relative error of the sum, or what happened instead."""
    try:
        total = call(x, k, temperature).double().sum(-1)
    except Exception as error:
        return f"error: {str(error).splitlines()[0][:60] or type(error).__name__}"
    return f"{((total - k).abs() / k).max().item():.1e}"


def second_derivative(call: Call, x: torch.Tensor) -> str:
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


def measure(
    *,
    lapsum: Path | None = None,
    sizes: tuple[int, ...] = (1_000, 100_000, 1_000_000),
    rounds: int = 31,
    many: int = 100_000,
) -> Found:
    """``lapsum`` is soft_topk.ipynb of gmum/LapSum, without which ours stands alone; ``many`` scores of hard inputs."""
    calls: dict[str, Call] = {"soft_topk": ours} | ({"LapSum": load_lapsum(lapsum)} if lapsum else {})
    g, rows = torch.Generator().manual_seed(1), []
    for n in sizes:
        for dtype in (torch.float64, torch.float32):
            x = torch.randn(1, n, generator=g, dtype=torch.float64).to(dtype)
            for backward in (False, True):
                took = compare(
                    calls, x, backward=backward, rounds=max(min(rounds, 5), rounds * 100_000 // max(n, 100_000))
                )
                rows.append({"n": n, "dtype": str(dtype)[6:], "what": "and backward" if backward else "forward"} | took)
                print(rows[-1], flush=True)
    what = [[name, *(error_of_sum(call, *case) for call in calls.values())] for name, case in cases(many).items()]
    small = torch.randn(2, 9, generator=g, dtype=torch.float64)
    what.append(["second derivative", *(second_derivative(call, small) for call in calls.values())])
    what.append(["forward mode", *(forward_mode(call, small) for call in calls.values())])
    body = (
        "k = n / 10, temperature 1, one row. The ratio is the median of paired runs.\n\n"
        f"{_record.show(rows)}\n\nWhat is kept: largest relative error of the sum of p, n = {many:,}, k = n / 10; "
        f"then what can be differentiated.\n\n{_record.table(['input', *calls], what)}"
    )
    ratios = {f"n {r['n']}, {r['dtype']}, {r['what']}": r["time ratio"] for r in rows if "time ratio" in r}
    return Found(rows=rows, body=body, figures={"kept": what[0][1]}, ratios=ratios, data={"kept": what})


if __name__ == "__main__":
    main(
        "soft_topk",
        "Smooth top-k keeps its sum: {kept} is the largest relative error of normal scores",
        measure,
        smoke={"sizes": (50,), "rounds": 1, "many": 60},
        check={"sizes": (1_000, 100_000), "rounds": 5, "many": 1000},
        needs="lapsum",
    )
