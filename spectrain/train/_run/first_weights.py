"""What the weights that a run begins with must be: within the bound that every later step keeps."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from spectrain import matfun, optim


class Norm(NamedTuple):
    """The largest singular value of a matrix over sqrt(out / in), and whose it is."""

    ratio: float
    name: str
    shape: tuple[int, ...]


def check_bound(optimizer: torch.optim.Optimizer, bound: float | None) -> None:
    """Raise ``ValueError`` where a matrix that ``bound`` is for begins above it, naming the one furthest above.

    The first step would clip it, whatever it was drawn for; under ``pre-decay`` it would stay above for long.
    """
    if bound is None:
        return
    top = max(_norms(optimizer), default=None)
    if top is not None and top.ratio > bound:
        least = math.ceil(1000 * top.ratio) / 1000
        raise ValueError(
            f"--bound {bound:g} is below the first weights: {top.name} {tuple(top.shape)} has a singular value of "
            f"{top.ratio:.4g} times sqrt(out / in). Give at least --bound {least:g}."
        )


def _norms(optimizer: torch.optim.Optimizer) -> Iterator[Norm]:
    """Of each logical matrix that has a bound."""
    for group in optimizer.param_groups:
        layout = optim.Matrix.from_dict(group.get("matrix") or {})
        for name, p in zip(group.get("param_names", ()), group["params"], strict=False):
            for W in layout.views(p.detach().contiguous()) if group.get("bound") is not None else ():
                out, in_ = W.shape
                yield Norm(float(matfun.spectral_norm(W).lower) / math.sqrt(out / in_), name, (out, in_))
