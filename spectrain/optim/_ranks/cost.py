"""What it costs to orthogonalise a spread matrix in each of three ways, and who should do which."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from spectrain.optim._layout.parts import Part

METHODS = ("replicated", "owner", "gram")
_ALLOWED = (("replicated",), ("replicated", "owner"), ("replicated", "gram"), METHODS)
_NORMS = (1.0, 4.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the cost model assumes of a rank: products, network, and the price of a message.

    ``flops`` in operations per second (a multiplication and an addition are two), ``bandwidth`` in bytes per
    second that a rank can send while it receives as many, ``latency`` in seconds a message. ``batch``: entries of the
    matrices that go through one call of msign. The figures decide which way is taken, never a result beyond rounding.

    ``bucket``: bytes of the matrices that a rank takes from others at once, once for each copy to which the result goes
    back, which bounds its work space; one batch where that has more. No bit of a result depends on it.

    >>> Machine.typical("cpu").bandwidth
    1000000000.0
    """

    flops: float | int = 1e14
    bandwidth: float | int = 2e10
    latency: float | int = 2e-5
    batch: int = 2**23
    bucket: float | int = 2**27

    def __post_init__(self) -> None:
        if not (self.flops > 0 and self.bandwidth > 0 and self.latency >= 0):
            raise ValueError(f"Machine: flops and bandwidth must be positive and latency >= 0, got {self}.")
        if not (self.batch > 0 and self.bucket > 0):
            raise ValueError(f"Machine: batch and bucket must be positive, got {self}.")

    @staticmethod
    def typical(device: str) -> Machine:
        """A present-day accelerator with a fast network, or for ``"cpu"`` a few cores with gloo."""
        # Batches as matfun's own: on a processor what stays in its cache.
        return Machine(flops=1e11, bandwidth=1e9, latency=1e-4, batch=2**19) if device == "cpu" else Machine()

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Work(NamedTuple):
    """One logical matrix spread over the ranks of a mesh, and how msign of it was asked for.

    ``shape`` is that of the matrix as it is stored. ``parts[i]`` is what position i of the mesh holds, ``copies[i]``
    the number of its copy. ``flops``: operations of one msign. ``steps``: polynomials of the schedule, and
    ``rounds``: how often a reduced Gram matrix would be summed, 0 where that is not offered. ``itemsize``: bytes of an
    entry on its way.
    """

    name: str
    shape: tuple[int, int]
    parts: tuple[Part, ...]
    copies: tuple[int, ...]
    flops: float
    steps: int = 0
    rounds: int = 0
    itemsize: int = 4

    @property
    def holders(self) -> list[int]:
        """Positions that hold something."""
        return [i for i, part in enumerate(self.parts) if part.numel]

    @property
    def bytes(self) -> int:
        """Bytes of the whole matrix on its way."""
        return self.shape[0] * self.shape[1] * self.itemsize

    @property
    def replicas(self) -> int:
        """How many copies there are."""
        return 1 + max(self.copies)

    def sources(self, i: int) -> list[int]:
        """Positions that position i needs parts from, itself left out: those of its own copy."""
        return [j for j in self.holders if self.copies[j] == self.copies[i] and j != i]


class Choice(NamedTuple):
    """How one matrix is done: by every holder for itself, by one owner, or from a reduced Gram matrix."""

    method: str
    owner: int | None = None


class Load(NamedTuple):
    """What a choice costs each position: operations, bytes sent, bytes received."""

    flops: Float[np.ndarray, " ranks"]
    sent: Float[np.ndarray, " ranks"]
    received: Float[np.ndarray, " ranks"]

    def __add__(self, other: tuple) -> Load:
        return Load(*(a + b for a, b in zip(self, other, strict=True)))

    def seconds(self, machine: Machine) -> Float[np.ndarray, " ranks"]:
        """Time of each position; sending and receiving overlap."""
        return self.flops / machine.flops + np.maximum(self.sent, self.received) / machine.bandwidth


def no_load(ranks: int) -> Load:
    """No load."""
    return Load(np.zeros(ranks), np.zeros(ranks), np.zeros(ranks))


class Phases(NamedTuple):
    """What a choice costs each position: to bring the matrix together, to compute, to take the result back to the parts
    of its copy, and to spread it from there over the other copies."""

    gather: Load
    compute: Load
    back: Load
    spread: Load


def load(work: Work, choice: Choice) -> Load:
    """Return what a choice costs each position."""
    gather, compute, back, spread = phases(work, choice)
    return gather + compute + back + spread


def phases(work: Work, choice: Choice) -> Phases:
    """Return the same, apart; what travels between products of the Gram way is part of its computation."""
    return _phases(work._replace(name=""), choice)  # nameless: equal matrices of a model are one entry of the cache


@functools.lru_cache(maxsize=4096)
def _phases(work: Work, choice: Choice) -> Phases:
    sizes = np.array([float(part.numel) for part in work.parts])
    return {"replicated": _replication, "owner": _owner, "gram": _gram}[choice.method](work, sizes, choice.owner)


def _replication(work: Work, sizes: Float[np.ndarray, " ranks"], owner: int | None) -> Phases:
    """Each holder gathers the matrix from its copy and computes for itself; nothing goes back."""
    copies, nothing = np.asarray(work.copies), np.zeros(len(sizes))
    holds = sizes > 0
    others = np.bincount(copies, holds)[copies] - 1
    rest = np.bincount(copies, sizes)[copies] - sizes
    gathered = Load(nothing, work.itemsize * sizes * others * holds, work.itemsize * rest * holds)
    return Phases(gathered, Load(work.flops * holds, nothing, nothing), no_load(len(sizes)), no_load(len(sizes)))


def _owner(work: Work, sizes: Float[np.ndarray, " ranks"], owner: int | None) -> Phases:
    """One position gathers from its copy, computes, gives its copy the parts, and each of those goes on to the others.

    Whoever has a part from the owner sends it to the R - 1 positions of the other copies that hold it, too. Where a
    copy is one position that is the way back itself.
    """
    assert owner is not None
    own, nothing = np.asarray(work.copies) == work.copies[owner], np.zeros(len(sizes))
    there = np.arange(len(sizes)) == owner
    parts = work.itemsize * sizes
    moved = np.where(own & ~there, parts, 0.0)
    back = Load(nothing, there * moved.sum(), moved)
    spread = Load(nothing, np.where(own, (work.replicas - 1) * parts, 0.0), np.where(own, 0.0, parts))
    return Phases(
        Load(nothing, moved, there * moved.sum()),
        Load(work.flops * there, nothing, nothing),
        *((back, spread) if others(work) else (spread, back)),
    )


def _gram(work: Work, sizes: Float[np.ndarray, " ranks"], owner: int | None) -> Phases:
    """The k x k Gram matrix is summed over all; each holder iterates on it and multiplies its own part."""
    k = min(work.shape)
    flops = 2.0 * (2 * work.rounds * k * sizes + 4 * work.steps * float(k) ** 3) * (sizes > 0)
    traffic = np.full(len(sizes), 2 * (1 - 1 / len(sizes)) * max(4, work.itemsize) * work.rounds * float(k) ** 2)
    return Phases(no_load(len(sizes)), Load(flops, traffic, traffic), no_load(len(sizes)), no_load(len(sizes)))


def computers(work: Work, choice: Choice) -> list[int]:
    """Positions that orthogonalise the whole matrix."""
    if choice.method == "owner":
        assert choice.owner is not None
        return [choice.owner]
    return work.holders if choice.method == "replicated" else []


def gram_fits(work: Work) -> bool:
    """Whether local parts make up the Gram matrix: each spans the short side, and the schedule allows it.

    Matrices less than twice as long as wide are left out: no gain there, and they are worse conditioned.
    """
    rows, columns = work.shape
    if not work.rounds or max(rows, columns) < 2 * min(rows, columns):
        return False
    spans = [part.columns == (0, columns) if rows > columns else part.rows == (0, rows) for part in work.parts]
    return all(spans[i] for i in work.holders)


def messages(works: Sequence[Work], choices: Sequence[Choice]) -> int:
    """Return how many messages one after the other a rank waits for.

    An all-to-all among the S ranks of a copy has S - 1, one of R copies R - 1, an all-reduce 2 log2 W.
    """
    return _messages(works, choices, [load(work, choice) for work, choice in zip(works, choices, strict=True)])


def _messages(works: Sequence[Work], choices: Sequence[Choice], moved: Sequence[Load]) -> int:
    if not works:
        return 0
    ranks = len(works[0].parts)
    sending = [(w, c) for w, c, m in zip(works, choices, moved, strict=True) if c.method != "gram" and m.sent.any()]
    owned = [w for w, c in sending if c.method == "owner"]
    among = max((others(w) for w, _ in sending), default=0) + max((others(w) for w in owned), default=0)
    spread = max((w.replicas - 1 for w in owned), default=0)
    rounds = max([w.rounds for w, c in zip(works, choices, strict=True) if c.method == "gram"] + [0])
    return among + spread + rounds * 2 * math.ceil(math.log2(max(ranks, 2)))


def others(work: Work) -> int:
    """Positions of a copy, beside one of them."""
    return len(work.parts) // work.replicas - 1


def seconds(works: Sequence[Work], choices: Sequence[Choice], machine: Machine) -> float:
    """Return the time of the slowest position, all messages included."""
    return _seconds(works, choices, [load(work, choice) for work, choice in zip(works, choices, strict=True)], machine)


def _seconds(works: Sequence[Work], choices: Sequence[Choice], moved: Sequence[Load], machine: Machine) -> float:
    if not works:
        return 0.0
    total = no_load(len(works[0].parts))
    for each in moved:
        total += each
    return float(total.seconds(machine).max()) + _messages(works, choices, moved) * machine.latency


class _Known:
    """Loads of choices for some works, each computed once; equal matrices of a model are one.

    A work of a thousand ranks has thousands of numbers, which to look up costs more than to add them.
    """

    def __init__(self, works: Sequence[Work]) -> None:
        kinds: dict[Work, int] = {}
        self.works = works
        self.kinds = [kinds.setdefault(work._replace(name=""), len(kinds)) for work in works]
        self._sizes = [np.array([float(part.numel) for part in work.parts]) for work in kinds]
        self._loads: dict[tuple[int, Choice], Load] = {}

    def sizes(self, n: int) -> Float[np.ndarray, " ranks"]:
        """Numbers of matrix ``n`` that each position holds."""
        return self._sizes[self.kinds[n]]

    def load(self, n: int, choice: Choice) -> Load:
        """What a choice for matrix ``n`` costs each position."""
        key = (self.kinds[n], choice)
        if key not in self._loads:
            self._loads[key] = load(self.works[n], choice)
        return self._loads[key]


def assign(works: Sequence[Work], machine: Machine) -> list[Choice]:
    """Choose for every matrix how it is done and by whom, so that the slowest rank is done as early as we find.

    Longest first, each to the choice that adds least to the p-norm of the ranks' times: p = infinity is Graham's list
    scheduling (for owners alone at most 4/3 of the best), p = 1 the least work in all. The best plan of several p and
    of several sets of allowed ways is kept, since a collective costs its messages however little it carries. The same
    on every rank, from shapes alone.

    >>> whole = Part((0, 8), (0, 8))
    >>> local = Work("expert", (8, 8), (whole, Part((0, 0), (0, 0))), (0, 0), 1e6)
    >>> assign([local], Machine())
    [Choice(method='replicated', owner=None)]
    """
    known = _Known(works)
    plans = [_greedy(known, machine, set(allowed), p) for allowed in _ALLOWED for p in _NORMS]

    def time(plan: list[Choice]) -> float:
        return _seconds(works, plan, [known.load(n, choice) for n, choice in enumerate(plan)], machine)

    return min(plans, key=time)


def _greedy(known: _Known, machine: Machine, allowed: set[str], p: float) -> list[Choice]:
    works = known.works
    found: list[Choice] = [Choice("replicated")] * len(works)
    if not works:
        return found
    total = no_load(len(works[0].parts))
    for n in sorted(range(len(works)), key=lambda n: (-works[n].flops, n)):
        options = _options(works[n], known.sizes(n), total.seconds(machine), allowed)
        costs = [(total + known.load(n, option)).seconds(machine) for option in options]
        best = min(range(len(options)), key=lambda i: (np.linalg.norm(costs[i], p), costs[i].max(), costs[i].sum(), i))
        found[n] = options[best]
        total += known.load(n, options[best])
    return found


def _options(
    work: Work, sizes: Float[np.ndarray, " ranks"], busy: Float[np.ndarray, " ranks"], allowed: set[str]
) -> list[Choice]:
    """The choices worth looking at: owners are the idlest rank and the idlest of those that hold most.

    Ties go by position, as in ``_greedy``: every rank makes this plan for itself and has to find the same.
    """
    options = [Choice("replicated")] if "replicated" in allowed else []
    if "owner" in allowed:
        idle = int(np.lexsort((np.arange(len(busy)), -sizes, busy))[0])
        near = int(np.lexsort((np.arange(len(busy)), busy, -sizes))[0])
        options += [Choice("owner", owner) for owner in dict.fromkeys((idle, near))]
    if "gram" in allowed and gram_fits(work):
        options.append(Choice("gram"))
    return options
