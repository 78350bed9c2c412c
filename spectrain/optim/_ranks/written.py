"""The last look before matrices move: an update that is not finite, or larger than any msign, is written nowhere."""

import functools
import math
from collections.abc import Sequence

from torch import Size, Tensor

from spectrain._arrays.scale import recording
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._ranks.agree import agreed_trouble
from spectrain.optim._ranks.sharded import Sharded
from spectrain.optim._step.scale import factor
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.squares import norms

_MOST = 4.0  # singular values of a result: every schedule has an error below 1, and looks at what came out


def check_updates(
    names: Sequence[str],
    updates: Sequence[Tensor],
    settings: Sequence[Settings],
    params: Sequence[Tensor],
    plans: Sequence[tuple[Sharded, list[int]]],
    trouble: str = "",
) -> None:
    """Raise ValueError naming each parameter whose update has no sense, on all ranks alike; no matrix has moved then.

    An update is a factor s times a matrix with singular values near 1, so that its norm is at most about
    s sqrt(min(out, in)); rows and columns that NorMuon divides keep it. Momentum that overflowed, weights of an average
    that did, or a fault of msign on some machine would show here. Cost: one pass over the updates and one value read;
    over ranks one reduction of an integer for each team, which also tells what msign had against its matrices on one of
    them (``trouble``), while the others waited for these. With ``capturable`` and in a graph no value can be read.
    """
    if recording() or all(said.capturable and said.tol is None for said in settings):
        return
    trouble = trouble or _wild(names, updates, settings, params)
    for plan, _ in plans:  # to the last, also where there is trouble already: the other ranks of each wait
        trouble = agreed_trouble(plan.team, trouble) or trouble
    if trouble:
        raise ValueError(trouble)


def _wild(
    names: Sequence[str], updates: Sequence[Tensor], settings: Sequence[Settings], params: Sequence[Tensor]
) -> str:
    """The parameters whose update is larger than any msign, in words; empty where there is none."""
    bad = []
    for name, size, said, p in zip(names, norms(updates), settings, params, strict=True):
        most = _MOST * _largest(said.matrix, p.shape, said.scale)
        if not size <= most:  # NaN is above everything
            bad.append(f"{name} {tuple(p.shape)} ({size:.3g}, at most {most:.3g})")
    return _words(bad) if bad else ""


def _words(bad: Sequence[str]) -> str:
    return (
        f"Muon: the update has a norm that no msign has for {', '.join(bad)}. These weights were not changed; the "
        "momentum has taken in the gradients. Look at gradients near the largest number of their dtype, then load an "
        "earlier state."
    )


@functools.lru_cache(maxsize=1024)
def _largest(layout: Matrix, shape: Size, scale: str) -> float:
    """The norm of an update of which every matrix is s times orthonormal."""
    return math.sqrt(sum(factor(scale, *pair) ** 2 * min(pair) for pair in layout.shapes(shape)))
