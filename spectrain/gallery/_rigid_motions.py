"""From curvature and torsion to the curve: g' = g xi(s) in the group of rigid motions, solved by screw motions.

A motion is a 4 x 4 matrix [[R, p], [0, 1]], its rate six numbers: a rotation vector and a translation. Magnus's
method of order six gives each step as the exponential of one rate, so the frame stays orthonormal to rounding, and
constant rates come out exact in one step. Steps are halved where whole step and two halves differ, and only there.

Source: Magnus integrators: Blanes, Casas, Oteo, Ros, The Magnus expansion and some of its applications, Physics
Reports 470 (2009), section 5; Rodrigues's formula: Murray, Li, Sastry, Robotic Manipulation (1994), chapter 2.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._stumpff import c2, c3

Rate = float | int | Callable[[Array], Numbers]  # curvature or torsion as a function of arc length

FIRST_STEPS = 1024  # over the whole length, before anything is halved: no feature longer than this part is missed
MOST_STEPS = 1 << 17
ROUNDING = 16 * float(np.finfo(float).eps)
SHORTEST = 1e-20  # of the whole length: rates that need such steps are not integrable
NODES = np.array([0.5 - np.sqrt(0.15), 0.5, 0.5 + np.sqrt(0.15)])
# From the six nodes of two halves to start, middle and end of the step, by the polynomial through them.
HALVES = np.concatenate([NODES / 2, NODES / 2 + 0.5])
ENDS = np.linalg.solve(np.vander(HALVES).T, np.vander([0.0, 0.5, 1.0], 6).T)


class Steps(NamedTuple):
    """Where each step begins, its length, its motion, and what it and its halves differ by."""

    start: Array
    length: Array
    motion: Array
    gap: Array


def along(curvature: Rate, torsion: Rate, s: Array, tol: Real, finest: Real | None) -> tuple[Array, Array]:
    """Points and frames (rows tangent, normal, binormal) at the arc lengths s."""
    constant = not (callable(curvature) or callable(torsion))
    longest = np.inf if constant else min((s[-1] - s[0]) / FIRST_STEPS, finest or np.inf)
    parts = np.maximum(1, np.ceil(np.diff(s) / longest)).astype(int)
    if parts.sum() > MOST_STEPS:
        raise ValueError(f"curvature: {parts.sum()} steps of length {finest} are too many; at most {MOST_STEPS} go.")
    length = np.repeat(np.diff(s) / parts, parts)
    start = np.repeat(s[:-1], parts) + length * (np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts))
    if constant:
        steps = Steps(start, length, _screw(_magnus(curvature, torsion, start, length)), np.zeros(len(start)))
    else:
        steps = _refined(curvature, torsion, start, length, s[-1] - s[0], tol)
    return _composed(steps, s)


def _refined(curvature: Rate, torsion: Rate, start: Array, length: Array, total: float, tol: Real) -> Steps:
    """The steps, halved until what they and their halves differ by adds up to less than tol."""
    steps = _judged(curvature, torsion, start, length, total)
    while steps.gap.sum() > tol:
        bad = steps.gap > tol / (2 * len(steps.gap))
        start, half = steps.start[bad], steps.length[bad] / 2
        if len(steps.gap) + len(half) > MOST_STEPS or np.any(half < np.maximum(np.spacing(start), SHORTEST * total)):
            raise ValueError(
                f"curvature: tol={tol} was not reached near s = {start[0]:.9g}; curvature and torsion must be smooth "
                "or have a few jumps, and be integrable."
            )
        new = _judged(curvature, torsion, np.r_[start, start + half], np.r_[half, half], total)
        steps = Steps(*(np.concatenate([a[~bad], b]) for a, b in zip(steps, new, strict=True)))
    order = steps.start.argsort(kind="stable")
    return Steps(*(part[order] for part in steps))


def _judged(curvature: Rate, torsion: Rate, start: Array, length: Array, total: float) -> Steps:
    """Steps with the motion of their two halves, and how far the motion in one is from it.

    A jump next to the end of a step lies between the nodes of all three. So the rates at the ends (and in the
    middle) must also be what the nodes say, up to a difference that, all along the step, would turn it by ``gap``.
    """
    half = length / 2
    whole = _screw(_magnus(curvature, torsion, start, length))
    motion = _screw(_magnus(curvature, torsion, start, half)) @ _screw(_magnus(curvature, torsion, start + half, half))
    apart = np.abs(motion - whole)
    apart[:, :3, 3] /= total
    nodes, ends = start[:, None] + length[:, None] * HALVES, start[:, None] + half[:, None] * np.arange(3)
    off = [np.abs(_rate(rate, ends) - _rate(rate, nodes) @ ENDS).max(axis=1) for rate in (curvature, torsion)]
    gap = np.maximum(apart.max(axis=(1, 2)), length * np.maximum(*off))
    return Steps(start, length, motion, np.where(gap < ROUNDING, 0.0, gap))


def _composed(steps: Steps, s: Array) -> tuple[Array, Array]:
    """The product of all motions up to each s."""
    ends = np.searchsorted(steps.start, s[1:], side="left")
    g, found, first = np.eye(4), np.empty((len(s), 4, 4)), 0
    found[0] = g
    for i, last in enumerate(ends, 1):
        for motion in steps.motion[first:last]:
            g = g @ motion
        found[i], first = g, last
    R = found[:, :3, :3]
    R = R @ (3 * np.eye(3) - R.transpose(0, 2, 1) @ R) / 2  # one Newton step to the nearest rotation: rounding only
    return found[:, :3, 3].copy(), R.transpose(0, 2, 1)


def _rate(rate: Rate, s: Array) -> Array:
    values = np.broadcast_to(np.asarray(rate(s) if callable(rate) else rate, dtype=float), s.shape)
    if not np.isfinite(values).all():
        raise ValueError("curvature: curvature and torsion must be finite on the whole range of s.")
    return values


def _magnus(curvature: Rate, torsion: Rate, s: Array, h: Array) -> Array:
    """The logarithm of each step's motion, to order h^6: values at three Gauss points and four commutators."""
    at = s[:, None] + h[:, None] * NODES
    kappa, tau = _rate(curvature, at), _rate(torsion, at)
    # xi(s): turning about torsion * tangent + curvature * binormal, and along the tangent at unit speed
    xi = np.zeros((3, len(h), 6))
    xi[:, :, 0], xi[:, :, 2], xi[:, :, 3] = tau.T, kappa.T, 1.0
    first, middle, last = xi * h[:, None]
    a1, a2, a3 = middle, np.sqrt(15) / 3 * (last - first), 10 / 3 * (last - 2 * middle + first)
    b1 = _bracket(a1, a2)
    b2 = _bracket(a1, 2 * a3 + b1) / -60
    return a1 + a3 / 12 + _bracket(-20 * a1 - a3 + b1, a2 + b2) / 240


def _bracket(a: Array, b: Array) -> Array:
    """The commutator [b, a]: the series is stated for g' = xi g; in g' = g xi products, and so brackets, turn round."""
    turn, shift = np.cross(b[:, :3], a[:, :3]), np.cross(b[:, :3], a[:, 3:]) - np.cross(a[:, :3], b[:, 3:])
    return np.concatenate([turn, shift], axis=1)


def _screw(rate: Array) -> Array:
    """The exponential, by Rodrigues's formula with Stumpff's functions."""
    omega, v = rate[:, :3], rate[:, 3:]
    z = np.sum(omega * omega, axis=-1)
    one, two, three = (c[:, None, None] for c in (1 - z * c3(z), c2(z), c3(z)))
    W = np.zeros((len(z), 3, 3))
    W[:, 0, 1], W[:, 0, 2], W[:, 1, 2] = -omega[:, 2], omega[:, 1], -omega[:, 0]
    W -= W.transpose(0, 2, 1)
    squared = W @ W
    motion = np.zeros((len(z), 4, 4))
    motion[:, :3, :3] = np.eye(3) + one * W + two * squared
    motion[:, :3, 3:] = v[:, :, None] + (two * W + three * squared) @ v[:, :, None]
    motion[:, 3, 3] = 1.0
    return motion
