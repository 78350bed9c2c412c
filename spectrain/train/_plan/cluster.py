"""What a plan assumes of a rank and of the links between ranks: named accelerators, or what was measured here."""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrain._files.read import read_object
from spectrain._files.values import number, row, table, whole
from spectrain._files.write import write_json

WAYS = ("alone", "shards", "replicas", "tensor")
"""How a model is divided."""
Rates = tuple[tuple[float | int, float | int], ...]
"""Pairs of a size and a rate at it, sizes rising."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What connects ranks: bytes per second that a rank sends while it receives as many, seconds a message."""

    bandwidth: float | int
    latency: float | int


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Seconds of a step beside its operations, bytes and messages: of a block there and back, of all else up to the
    gradients and their norm, of a matrix of an update, and of all else of the update.

    >>> Beside(block=1.0, rest=2.0) + Beside(matrix=3.0)
    Beside(block=1.0, rest=2.0, matrix=3.0, update=0.0)
    """

    block: float | int = 0.0
    rest: float | int = 0.0
    matrix: float | int = 0.0
    update: float | int = 0.0

    def __add__(self, other: "Beside") -> "Beside":
        """Both."""
        return Beside(**{key: value + getattr(other, key) for key, value in dataclasses.asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A rank, how many of them one machine has, and the links inside of it and between machines.

    ``products``: operations per second in each dtype (a multiplication and an addition are two), by size, the cube root
    of rows x inner x columns; ``attention``: those of fused attention, likewise in each dtype. ``moves``: bytes per
    second that elementwise work reads and writes, by bytes. ``call``: seconds that a call of torch costs beside its
    work. ``msign``: operations per second of an msign in each dtype, by its short side. ``beside``: what a step costs
    besides, by how the model is divided: ``alone``, or over ``shards``, ``replicas`` and ranks that share matrices
    (``tensor``). ``message``: seconds a collective costs beside its messages. ``overlaps``: whether collectives run
    beside products, as on CUDA streams; on processors nothing does.

    >>> NAMED["h100"].rate("bfloat16", 4096) / 1e12
    791.2
    >>> Cluster.from_dict(NAMED["h200"].as_dict()) == NAMED["h200"]
    True
    """

    name: str
    source: str
    device: str
    memory: float | int
    node: int
    products: dict[str, Rates]
    attention: dict[str, Rates]
    moves: Rates
    msign: dict[str, Rates]
    call: float | int
    beside: dict[str, Beside]
    message: float | int
    inside: Link
    between: Link
    overlaps: bool

    def rate(self, dtype: str, size: float | int, *, fused: bool = False) -> float:
        """Operations per second of products of this size, or of fused attention."""
        rates = self.attention if fused else self.products
        if dtype not in rates:
            raise ValueError(f"{self.name} has no rate in {dtype}; it has {', '.join(rates)}.")
        return between(rates[dtype], size)

    def besides(self, *ways: str) -> Beside:
        """What is known of the first of some ways to divide a model; nothing where nothing is known of any."""
        return next((self.beside[way] for way in ways if way in self.beside), Beside())

    def move(self, size: float | int) -> float:
        """Seconds to read and write so many bytes."""
        return size / between(self.moves, size)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, said: Any) -> "Cluster":
        """What :meth:`as_dict` gave. Raises ``ValueError`` naming what is wrong."""
        values = table(said, {field.name for field in dataclasses.fields(cls)})
        if not isinstance(values["overlaps"], bool):
            raise ValueError(f"overlaps must be true or false, got {values['overlaps']!r}")
        return cls(
            name=_text(values["name"], "name"),
            source=_text(values["source"], "source"),
            device=_text(values["device"], "device"),
            overlaps=values["overlaps"],
            call=number(values["call"], "call", least=0),
            message=number(values["message"], "message", least=0),
            memory=number(values["memory"], "memory", least=1),
            node=whole(values["node"], "node", least=1),
            products=_tables(values["products"], "products"),
            attention=_tables(values["attention"], "attention"),
            moves=_rates(values["moves"], "moves"),
            msign=_tables(values["msign"], "msign"),
            beside=_beside(values["beside"]),
            inside=_link(values["inside"], "inside"),
            between=_link(values["between"], "between"),
        )


def between(rates: Rates, size: float | int) -> float:
    """The rate at a size: linear in its logarithm between two that are known, and that of the last beyond.

    >>> between(((1, 10.0), (100, 30.0)), 10), between(((1, 10.0), (100, 30.0)), 1000)
    (20.0, 30.0)
    """
    sizes = [known for known, _ in rates]
    after = bisect.bisect_left(sizes, size)
    if after in (0, len(sizes)):
        return float(rates[min(after, len(sizes) - 1)][1])
    (low, slow), (high, fast) = rates[after - 1], rates[after]
    share = math.log(size / low) / math.log(high / low)
    return float(slow + share * (fast - slow))


def read_cluster(name: str) -> Cluster:
    """The named cluster, or the one in a file that ``spectrain calibrate`` wrote.

    Raises ``ValueError`` for a name that is none and for a file that says something else.
    """
    if name in NAMED:
        return NAMED[name]
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"--machine must be one of {', '.join(NAMED)} or a file written by spectrain calibrate, got {name!r}."
        )
    try:
        return Cluster.from_dict(read_object(path, what="a file written by spectrain calibrate"))
    except ValueError as error:
        said = str(error)
        raise ValueError(said if name in said else f"{name}: {said}; write it by spectrain calibrate.") from None


def write_cluster(cluster: Cluster, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    write_json(path, cluster.as_dict())


def _text(said: Any, name: str) -> str:
    if not isinstance(said, str):
        raise ValueError(f"{name} must be a text, got {said!r}")
    return said


def _tables(said: Any, name: str) -> dict[str, Rates]:
    if not isinstance(said, dict) or not said:
        raise ValueError(f"{name} must be an object with rates by dtype, got {said!r}")
    return {dtype: _rates(rates, f"{name} in {dtype}") for dtype, rates in said.items()}


def _beside(said: Any) -> dict[str, Beside]:
    names = {field.name for field in dataclasses.fields(Beside)}
    if not isinstance(said, dict) or not said.keys() <= set(WAYS):
        raise ValueError(f"beside must be an object of some of {', '.join(WAYS)}, got {said!r}")
    return {
        way: Beside(**{name: number(value, f"{name} of {way}", least=0) for name, value in table(own, names).items()})
        for way, own in said.items()
    }


def _rates(said: Any, name: str) -> Rates:
    pairs = [_pair(pair, name) for pair in (row(list(said), name) if isinstance(said, (list, tuple)) else [])]
    if not pairs or pairs != sorted(pairs) or len({size for size, _ in pairs}) < len(pairs):
        raise ValueError(f"{name} must be pairs of a size and a rate, sizes rising, got {said!r}")
    return tuple(pairs)


def _pair(said: Any, name: str) -> tuple[float, float]:
    if not isinstance(said, (list, tuple)) or len(said) != 2:
        raise ValueError(f"{name} must be pairs of a size and a rate, got {said!r}")
    size, rate = (number(value, name, least=1) for value in said)
    return size, rate


def _link(said: Any, name: str) -> Link:
    values = table(said, {"bandwidth", "latency"})
    found = {key: number(value, f"{key} of {name}", least=0) for key, value in values.items()}
    if not found["bandwidth"]:
        raise ValueError(f"bandwidth of {name} must be positive")
    return Link(**found)


def _hopper(name: str, memory: float | int, moved: float | int) -> Cluster:
    tera, giga, micro = 1e12, 1e9, 1e-6
    # Peaks of the data sheet without sparsity; of them optimized products reach 80 to 90 % and FlashAttention-2, which
    # torch has, 35 % (FlashAttention-3, arXiv 2407.08608, section 1).
    peaks: Sequence[tuple[str, float]] = (("bfloat16", 989.0), ("float32", 67.0))
    return Cluster(
        name=name,
        source="NVIDIA's data sheets; NCCL 2.28, src/graph/topo.h and tuning.cc; arXiv 2407.08608",
        device="cuda",
        memory=memory * giga,
        node=8,
        products={dtype: ((1.0, 0.8 * peak * tera),) for dtype, peak in peaks},
        attention={dtype: ((1.0, 0.35 * peak * tera),) for dtype, peak in peaks},
        moves=((1.0, moved * tera),),
        msign={dtype: ((1.0, 0.8 * peak * tera),) for dtype, peak in peaks},
        call=0.0,
        beside={},
        message=8.4 * micro,
        inside=Link(bandwidth=18 * 20.6 * giga, latency=3.4 * micro),
        between=Link(bandwidth=50 * giga, latency=14 * micro),
        overlaps=True,
    )


NAMED = {"h100": _hopper("h100", 80, 3.35), "h200": _hopper("h200", 141, 4.8)}
"""H100 SXM and H200: eight a machine, joined by NVLink (18 links of which NCCL counts 20.6 GB/s each), and a port of
400 Gb/s each, InfiniBand or Ethernet. Latencies are those by which NCCL chooses its algorithms: rings, protocol Simple.
Nothing here was measured by us."""
