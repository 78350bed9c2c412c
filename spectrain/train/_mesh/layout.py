"""How ranks stand: replicas x shards, and what neighbours share. Standard library only."""

import re
from typing import NamedTuple

_FORM = re.compile(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})")


class Layout(NamedTuple):
    """The sizes of a mesh; neighbours in rank share a matrix or divide experts, then a shard group, then are replicas.

    Ranks that divide experts have rows of their own, and are shards to all other weights.
    """

    replicas: int = 1
    shards: int = 1
    tensor: int = 1
    experts: int = 1

    @property
    def parts(self) -> int:
        """Into how many parts a batch is divided."""
        return self.replicas * self.shards * self.experts

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.parts * self.tensor

    def __str__(self) -> str:
        words = f"{self.replicas} x {self.shards} (replicas x shards)"
        words += f" x {self.tensor} (tensor parallel)" if self.tensor > 1 else ""
        return words + (f" x {self.experts} (expert parallel)" if self.experts > 1 else "")


def sizes(mesh: str | None) -> tuple[int, int] | None:
    """Replicas and shards of ``"RxS"``; None where nothing is said or it is no such text.

    >>> sizes("2x4"), sizes("2*4")
    ((2, 4), None)
    """
    found = _FORM.fullmatch(mesh or "")
    return (int(found[1]), int(found[2])) if found else None


def layout(mesh: str | None, *, tensor: int = 1, experts: int = 1, ranks: int) -> Layout:
    """How ``ranks`` processes stand; without ``mesh`` all that ``tensor`` and ``experts`` leave are shards.

    Raises ``ValueError`` where that does not fit.

    >>> layout(None, tensor=2, ranks=8)
    Layout(replicas=1, shards=4, tensor=2, experts=1)
    """
    flags = {"--tensor-parallel": tensor, "--expert-parallel": experts}
    further = " and ".join(f"{flag} {size}" for flag, size in flags.items() if size > 1)
    asked = sizes(mesh)
    if asked is None and ranks % (tensor * experts):
        least = tensor * experts
        raise ValueError(
            f"{further} does not divide the {ranks} rank{'s' * (ranks > 1)} that {'were' if ranks > 1 else 'was'} "
            f"started. Start {least} or a multiple: torchrun --nproc-per-node {least} -m spectrain train ...; or leave "
            "it out."
        )
    found = Layout(*(asked or (1, ranks // (tensor * experts))), tensor, experts)
    if found.ranks != ranks:
        product = " x ".join(map(str, [*found[:2], *(size for size in flags.values() if size > 1)]))
        by = f"--mesh {mesh} with {further}" if further else f"--mesh {mesh}"
        raise ValueError(
            f"{by} needs {product} = {found.ranks} ranks, and {ranks} {'was' if ranks == 1 else 'were'} started. Give "
            f"torchrun so many processes, or another --mesh; without it all ranks are shards."
        )
    return found
