"""How ranks stand: replicas x shards x tensor-parallel. Standard library only."""

import re
from typing import NamedTuple

_FORM = re.compile(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})")


class Layout(NamedTuple):
    """The three sizes of a mesh; neighbours in rank share a matrix, then a shard group, then are replicas."""

    replicas: int = 1
    shards: int = 1
    tensor: int = 1

    @property
    def parts(self) -> int:
        """Into how many parts a batch is divided."""
        return self.replicas * self.shards

    def __str__(self) -> str:
        words = f"{self.replicas} x {self.shards} (replicas x shards)"
        return words if self.tensor == 1 else f"{words} x {self.tensor} (tensor parallel)"


def sizes(mesh: str | None) -> tuple[int, int] | None:
    """Replicas and shards of ``"RxS"``; None where nothing is said or it is no such text.

    >>> sizes("2x4"), sizes("2*4")
    ((2, 4), None)
    """
    found = _FORM.fullmatch(mesh or "")
    return (int(found[1]), int(found[2])) if found else None


def layout(mesh: str | None, *, tensor: int, ranks: int) -> Layout:
    """How ``ranks`` processes stand; without ``mesh`` all that ``tensor`` leaves are shards.

    Raises ``ValueError`` where that does not fit.

    >>> layout(None, tensor=2, ranks=8)
    Layout(replicas=1, shards=4, tensor=2)
    """
    asked = sizes(mesh)
    if asked is None and ranks % tensor:
        raise ValueError(f"--tensor-parallel {tensor} does not divide the {ranks} ranks that were started.")
    found = Layout(*(asked or (1, ranks // tensor)), tensor)
    wanted = found.parts * tensor
    if wanted != ranks:
        product = " x ".join(map(str, found if tensor > 1 else found[:2]))
        by = f"--mesh {mesh}" if tensor == 1 else f"--mesh {mesh} with --tensor-parallel {tensor}"
        raise ValueError(
            f"{by} needs {product} = {wanted} ranks, and {ranks} {'was' if ranks == 1 else 'were'} started. Give "
            f"torchrun so many processes, or another --mesh; without it all ranks are shards."
        )
    return found
