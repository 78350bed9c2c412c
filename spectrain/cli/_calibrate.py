"""``spectrain calibrate``: measure this machine, for ``spectrain plan --machine FILE``."""

from dataclasses import dataclass
from pathlib import Path

import torch

from spectrain.cli._parse import parse
from spectrain.train.internal import choose_device, follows, joined, layout, measure_cluster, started
from spectrain.train.planning import Cluster, write_cluster


@dataclass(frozen=True)
class Calibrate:
    """Measure products, attention, memory and, under torchrun, what ranks send each other; write it to a file.

    Start it as the run will be started: so many ranks share the processor.
    """

    out: Path = Path("machine.json")
    """The file."""
    device: str = "auto"
    """'auto' takes CUDA where there is one, else the CPU."""
    threads: int | None = None
    """CPU threads. Default: as many as torch takes."""
    rounds: int = 3
    """Each figure is the median of so many."""
    rank_timeout: float = 600.0
    """Under torchrun, seconds after which a rank that does not answer counts as hanging."""


def main(argv: list[str]) -> int:
    """Measure, write, say what was found."""
    asked = parse(Calibrate, argv, prog="spectrain calibrate", console_outputs=not follows())
    for name, most in (("rounds", 1000), ("threads", 2**10)):
        value = getattr(asked, name)
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"--{name} must be from 1 to {most:,}, got {value}.")
    if not 0 < asked.rank_timeout < 1e7:
        raise ValueError(f"--rank-timeout must be positive, in seconds, got {asked.rank_timeout}.")
    if not asked.out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {asked.out.parent}; make it, or name another.")
    device = torch.device(choose_device(asked.device))
    if asked.threads:
        torch.set_num_threads(asked.threads)
    start = started()
    if start is None:
        _write(measure_cluster(None, device=device, rounds=asked.rounds), asked.out)
        return 0
    stand = layout(None, ranks=start.world)
    with joined(start, stand, wishes={"rounds": asked.rounds}, timeout=asked.rank_timeout) as ranks:
        found = measure_cluster(ranks, device=device, rounds=asked.rounds)
        ranks.by_first(lambda: _write(found, asked.out))
    return 0


def _write(found: Cluster, out: Path) -> None:
    write_cluster(found, out)
    products = ", ".join(f"{rates[-1][1] / 1e9:,.0f} in {dtype}" for dtype, rates in found.products.items())
    print(f"{found.name}: products of {found.products['float32'][-1][0]:.0f}: {products} GFLOP/s")
    moved = found.moves[-1][1] / 1e9
    print(f"memory: {found.memory / 1e9:.1f} GB a rank, {moved:.1f} GB/s; a call {1e6 * found.call:.1f} us")
    if "assumed" not in found.source:
        link = found.inside
        print(f"link: {link.bandwidth / 1e9:.2f} GB/s, {1e6 * link.latency:.0f} us a message")
    print(f"written to {out}; spectrain plan --machine {out} takes it")
