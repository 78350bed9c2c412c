"""``spectrain plan``: who would orthogonalise which matrix on a mesh of ranks, and what it costs each of them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from spectrain import nn, optim
from spectrain._files.write import write_json
from spectrain.cli._parse import parse


@dataclass(frozen=True)
class Plan:
    """Print bytes, operations and balance per rank of Muon's step for a model and a mesh; start no process.

    The model is that of `spectrain train` for the same --depth, --width, --heads and --vocabulary.
    """

    mesh: tuple[int, ...] = (8,)
    """Ranks along each dimension of the mesh. The last one shards (fully_shard), the others hold copies."""
    cuts: tuple[int, ...] | None = None
    """Tensor dimension that each mesh dimension shards, -1 for copies. Default: -1 ... -1 0."""
    depth: int = 12
    """Blocks of the model."""
    width: int | None = None
    """Features of the residual stream. Default: 64 * depth."""
    heads: int | None = None
    """Attention heads. Default: one for 64 features."""
    kv_heads: int | None = None
    """Heads of keys and values. Default: those of --heads."""
    hidden: int | None = None
    """Width inside the feed-forward block. Default: 8/3 of the width, up to a multiple of 64."""
    vocabulary: int = 50304
    """Tokens; embedding and head go to AdamW and cost nothing here."""
    steps: int = 5
    """Polynomials of each msign."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What msign works in and momentum travels in."""
    flops: float = optim.ranks.Machine.flops
    """Operations per second of a rank."""
    bandwidth: float = optim.ranks.Machine.bandwidth
    """Bytes per second that a rank sends while it receives as many."""
    latency: float = optim.ranks.Machine.latency
    """Seconds a message."""
    matrices: bool = False
    """List every matrix, with its way and its owner."""
    out: Path | None = None
    """Write the plan to this JSON file, too."""


def main(argv: list[str]) -> int:
    """Print the plan."""
    asked = parse(Plan, argv, prog="spectrain plan")
    width = asked.width or 64 * asked.depth
    sizes = {name: getattr(asked, name) for name in ("width", "heads", "kv_heads", "hidden", "vocabulary", "steps")}
    for name, value in {**sizes, "depth": asked.depth, "mesh": math.prod(asked.mesh)}.items():
        most = 10_000 if name == "depth" else 2**24
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')} must be from 1 to {most:,}, got {value}.")
    with torch.device("meta"):
        model = nn.LanguageModel(
            vocabulary=asked.vocabulary,
            width=width,
            depth=asked.depth,
            heads=asked.heads or max(1, width // 64),
            kv_heads=asked.kv_heads,
            hidden=asked.hidden,
        )
    found = optim.ranks.plan_shards(
        model,
        mesh=asked.mesh,
        cuts=None if asked.cuts is None else [None if cut < 0 else cut for cut in asked.cuts],
        machine=optim.ranks.Machine(flops=asked.flops, bandwidth=asked.bandwidth, latency=asked.latency),
        steps=asked.steps,
        compute_dtype=asked.compute_dtype,
    )
    print(found)
    if asked.matrices:
        for row in found.rows:
            owner = "" if row["owner"] is None else f"rank {row['owner']}"
            print(f"{row['name']:40}  {'x'.join(map(str, row['shape'])):>12}  {row['method']:10}  {owner}")
    if asked.out is not None:
        write_json(asked.out, {"rows": found.rows, "ranks": found.ranks})
    return 0
