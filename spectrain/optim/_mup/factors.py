"""The powers of the width: initialisation, learning rates and decay of every role, on one page."""

import math

from spectrain.optim._mup.roles import Part
from spectrain.optim._step.scale import canonical

# Exponents e of the factor (width / base_width)^e on the learning rate, by role.
ADAMW = {"input": 0.0, "hidden": -1.0, "output": -1.0, "tied": 0.0, "vector": 0.0}

# The spectral norm that an update may have, and the one that a scale mode gives: sqrt(out/in) as powers of the width
# (a hidden matrix has out ~ in ~ width). Their difference is the exponent of Muon's learning rate.
TARGET = {"input": 0.5, "hidden": 0.0, "output": -0.5, "tied": 0.5, "vector": 0.0}
GIVEN = {
    "match_rms_adamw": {"input": 0.5, "hidden": 0.5, "output": 0.5, "tied": 0.5},
    "original": {"input": 0.5, "hidden": 0.0, "output": 0.0, "tied": 0.5},
    "spectral": {"input": 0.5, "hidden": 0.0, "output": -0.5, "tied": 0.5},
    "none": {"input": 0.0, "hidden": 0.0, "output": 0.0, "tied": 0.0},
}


def standard_deviation(part: Part, out: int, *, base_width: int, standard: bool = False) -> float:
    """Return the standard deviation of the initial entries of a piece of ``out`` rows.

    Hidden and input: sqrt(min(1, out/in) / in) (article 10795). Output: sqrt(base_width) / in, whose square falls as
    1/width^2 (article 10770), and which is 1/sqrt(in) at ``base_width``. A table of rows: 1; one that is the head as
    well: 1/sqrt(base_width).
    """
    if standard or part.role == "output":
        return part.in_**-0.5 if standard else math.sqrt(base_width) / part.in_
    if part.role == "tied":
        return base_width**-0.5
    return math.sqrt(min(1.0, out / part.in_) / part.in_)


def rate(part: Part, algorithm: str, scale: str, *, base_width: int) -> float:
    """Return the factor on the learning rate of one parameter; 1 where its growing side is ``base_width``.

    ``algorithm`` as ``route`` names it. ``"sign"`` moves each entry by ``lr``, as AdamW does, and ``"rows"`` each row
    by sqrt(width) times the scale mode, as Muon moves an input.
    """
    ratio = part.width / base_width
    if algorithm in ("adamw", "sign") or part.role == "vector":
        return float(ratio ** ADAMW[part.role])
    exponent = TARGET[part.role] - GIVEN[canonical(scale)][part.role]
    return float(ratio**exponent) * _heads_along_in(part, scale, ratio)


def _heads_along_in(part: Part, scale: str, ratio: float) -> float:
    """Heads cut along ``in`` add up in the output: as many pieces, each no wider, must share the norm of one.

    k pieces of norm s have together up to sqrt(k) s, and a scale mode sees the head's own ``in``, which stays.
    """
    if part.matrix is None or not part.matrix.heads or part.matrix.along != "in" or part.role != "hidden":
        return 1.0
    seen = GIVEN[canonical(scale)]["input"] - GIVEN[canonical(scale)]["hidden"]
    return float(ratio ** (-0.5 - seen))
