"""What the weights that a run begins with must be: within the bound that every later step keeps."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from spectrain import matfun, optim
from spectrain.train._mesh.failing import shared
from spectrain.train._mesh.ranks import ALONE, Ranks
from spectrain.train._mesh.whole import gathered


class Norm(NamedTuple):
    """The largest singular value of a matrix over sqrt(out / in), and whose it is."""

    ratio: float
    name: str
    shape: tuple[int, ...]


def check_bound(optimizer: torch.optim.Optimizer, bound: float | None, ranks: Ranks = ALONE) -> None:
    """Raise ``ValueError`` where a matrix that ``bound`` is for begins above it, naming the one furthest above.

    Also where Muon moves no matrix, so that nobody would hold it.
    The first step would clip what is above, whatever it was drawn for; under ``pre-decay`` it would stay for long.
    """
    if bound is None:
        return
    own = max(_norms(optimizer, ranks), default=None)
    top = max(filter(None, ranks.gather(own)), default=None)
    if top is None:
        raise shared(ValueError(f"--bound {bound:g} must be left out: Muon moves no matrix of this model."))
    if top.ratio > bound:
        least = math.ceil(1000 * top.ratio) / 1000
        raise shared(
            ValueError(
                f"--bound {bound:g} is below the first weights: {top.name} {tuple(top.shape)} has a singular value of "
                f"{top.ratio:.4g} times sqrt(out / in). Give at least --bound {least:g}."
            )
        )


def _norms(optimizer: torch.optim.Optimizer, ranks: Ranks) -> Iterator[Norm]:
    """Of each logical matrix of this rank's turn: one parameter after the other is gathered on all of them."""
    turn = 0
    for group in optimizer.param_groups:
        if group.get("algorithm") != "muon":
            continue
        layout = optim.Matrix.from_dict(group.get("matrix") or {})
        for name, p in zip(group["param_names"], group["params"], strict=True):
            whole, turn = gathered(p.detach()), turn + 1
            for W in layout.views(whole.contiguous()) if turn % ranks.world == ranks.rank else ():
                out, in_ = W.shape
                yield Norm(float(matfun.spectral_norm(W).lower) / math.sqrt(out / in_), name, (out, in_))
