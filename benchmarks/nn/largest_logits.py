"""What it costs to see the largest logit of each head: a training step of attention with and without."""

from collections.abc import Callable

import torch

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from spectrain import nn

LENGTHS = (256, 1024, 2048)


def step(layer: nn.Attention, x: torch.Tensor, *, watched: bool) -> Callable[[], object]:
    """Forward and backward of one block."""

    def run() -> None:
        layer.watches = watched
        layer(x).square().mean().backward()

    return run


def measure(*, lengths: tuple[int, ...] = LENGTHS, width: int = 256, rounds: int = 9) -> Found:
    """Grouped and latent attention in float32, 1,024 tokens or one sequence."""
    rows = []
    for name, kind in {"GQA": {"kv_heads": 2}, "MLA": {"latent": width // 2}}.items():
        for length in lengths:
            layer = nn.Attention(width, heads=4, **kind)
            layer.initialise(generator=torch.Generator().manual_seed(0))
            x = torch.randn(max(1, 1024 // length), length, width, generator=torch.Generator().manual_seed(1))
            calls = {"without": step(layer, x, watched=False), "with": step(layer, x, watched=True)}
            times = alternate(calls, rounds=rounds)
            ratio = times.ratio("with", "without")
            rows.append({"kind": name, "length": length, "without, ms": 1e3 * times.median("without"), "ratio": ratio})
    return Found(rows=rows, body=show(rows), figures={"ratio": max(float(row["ratio"]) for row in rows)})


if __name__ == "__main__":
    main(
        "largest_logits",
        "Seeing the largest logit of each head makes a training step of attention at most {ratio:.2f} times as long",
        measure,
        smoke={"lengths": (16,), "width": 16, "rounds": 1},
    )
