"""Pursuers in a ring, each heading for the next: they meet, by a bound on how the perimeter falls.

Source: Nahin, Chases and Escapes (2007), chapter 3; Fenchel's theorem: do Carmo, Differential Geometry, 5.7.
"""

from typing import Literal

import numpy as np
from scipy.integrate import solve_ivp

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._outcomes import CLOSE, TOLERANCE, Pursuit


def ring(starts: Numbers, speed: Real) -> Pursuit:
    """Pursuers in a ring, each heading for the next and the last for the first, until two of them meet.

    A regular ring of n, side L, meets in the middle at L/(speed (1 - cos(2 pi/n))). ``position(t)`` has shape
    (n, dimension). Raises ValueError for fewer than two pursuers, or two neighbours at the same place.

    >>> square = ring([[0, 0], [1, 0], [1, 1], [0, 1]], 1.0)
    >>> square.captured, bool(abs(square.time - 1) < 1e-6)
    (True, True)
    """
    starts = np.asarray(starts, dtype=float)
    if starts.ndim != 2 or len(starts) < 2 or not np.isfinite(starts).all() or not (np.isfinite(speed) and speed > 0):
        raise ValueError("pursuit: a ring needs at least two finite positions and a positive speed.")
    shape, sides = starts.shape, np.linalg.norm(np.roll(starts, -1, axis=0) - starts, axis=1)
    if not np.all(sides > 0):
        raise ValueError("pursuit: two neighbours of the ring start at the same place.")

    def gaps(x: Array) -> Array:
        x = x.reshape(shape)
        return np.asarray(np.roll(x, -1, axis=0) - x)

    def rule(t: float, x: Array) -> Array:
        R = gaps(x)
        return np.asarray((speed * R / np.linalg.norm(R, axis=1, keepdims=True)).reshape(-1))

    def meeting(t: float, x: Array) -> float:
        return float(np.linalg.norm(gaps(x), axis=1).min() - CLOSE * sides.min())

    meeting.terminal = True  # type: ignore[attr-defined]
    # The perimeter falls at the rate speed * sum of 1 - cos(turn), and the turns of a closed ring add up to 2 pi or
    # more (Fenchel): with 1 - cos(x) >= 2 (x/pi)^2 and Cauchy-Schwarz the sum is at least 8/n.
    n = len(starts)
    limit = n * float(sides.sum()) / (8 * speed)
    run = solve_ivp(rule, (0.0, 1.01 * limit), starts.reshape(-1), events=[meeting], dense_output=True, **TOLERANCE)
    met, left = bool(run.t_events[0].size), gaps(run.y[:, -1])
    size = np.linalg.norm(left, axis=1)
    i = int(size.argmin())
    cosine = float(left[i] @ left[(i + 1) % n] / size[i] / size[(i + 1) % n])
    time = float(run.t[-1]) + float(size[i]) / (speed * (1 - cosine)) * met
    why = f"Two must meet by t = {limit:.6g} (n perimeter / (8 speed)); here two are {size[i]:.3g} apart."
    outcome: Literal["capture", "undecided"] = "capture" if met else "undecided"
    return Pursuit(outcome, time, speed * time, float(size[i]), why, lambda t: run.sol(t).reshape(shape))
