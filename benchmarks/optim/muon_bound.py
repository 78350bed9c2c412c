"""What a bound on singular values costs a step of Muon: nothing above it, some above it, and decay before each step."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from spectrain import optim

SHAPES = ((256, 256), (704, 256), (512, 512))


def step(shape: tuple[int, int], count: int, **settings: object) -> Callable[[], object]:
    """Steps of one optimizer, with ``count`` matrices that stay about where they are."""
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(*shape, generator=g) / shape[1] ** 0.5) for _ in range(count)]
    for p in params:
        p.grad = torch.randn(*shape, generator=g)
    return optim.Muon(params, lr=1e-4, weight_decay=0.0, scale="spectral", **settings).step


def measure(*, shapes: tuple[tuple[int, int], ...] = SHAPES, count: int = 4, rounds: int = 11) -> Found:
    """Gaussian matrices of norm about 2 sqrt(out / in), float32; ratios to a step without bound."""
    rows = []
    for shape in shapes:
        calls = {
            "without": step(shape, count),
            "none above": step(shape, count, bound=100.0),
            "post-clip": step(shape, count, bound=1.6),
            "pre-decay": step(shape, count, bound=1.6, bound_by="pre-decay"),
        }
        for call in ("post-clip",):  # what is far above goes at once; what a step clips later is what it has added
            calls[call]()
        times = alternate(calls, rounds=rounds)
        ratios = {name: times.ratio(name, "without") for name in calls if name != "without"}
        rows.append({"shape": f"{shape[0]} x {shape[1]}", "without, ms": 1e3 * times.median("without"), **ratios})
    worst = {name: max(float(row[name]) for row in rows) for name in ("none above", "post-clip", "pre-decay")}
    return Found(
        rows=rows, body=show(rows), figures={k.replace("-", "_").replace(" ", "_"): v for k, v in worst.items()}
    )


if __name__ == "__main__":
    main(
        "muon_bound",
        "With a bound a step of Muon takes at most {none_above:.2f} of its time where nothing is above it, "
        "{post_clip:.2f} with post-clip and {pre_decay:.2f} with pre-decay",
        measure,
        smoke={"shapes": ((16, 16),), "count": 1, "rounds": 1},
    )
