"""The schedules of ``steps=``, and the working dtype in which a schedule is safe."""

import functools
from typing import Any

import torch

from spectrain._arrays.graphs import constant_in_graphs
from spectrain.approx import Schedule, sign_schedule
from spectrain.approx.internal import guarded_schedule, largest_values

_NAMES: dict[torch.dtype, Any] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
    torch.float64: "float64",
}

_FIRST, _REACH, _REACH_LATER, _TURN = 0.4, 10 / 3, 2.5, 6
_FEW = (0.56, 0.165, 0.045)  # one to three quintics leave 0.015 from here on: beyond them nothing is raised past 1.02
_HALF = 1.08  # every step in half precision gives up that much of its growth for what rounding adds
_ROOM, _ROOM_HALF = 0.02, 0.06  # what rounding may add to a result at most; quintics add 1e-6 and 0.03
_KEPT = 0.9  # what the guard must leave of the largest value: long polynomials in coarse dtypes it makes 0
_LEAST, _LEAST_HALF = 27.0, 0.26  # in units of u, the unit roundoff


def design_lower(steps: int, dtype: torch.dtype = torch.float32) -> float:
    """Return the smallest singular value, relative to the largest, that ``steps=`` quintics are designed for.

    One more optimal quintic multiplies the slope at zero by four at most. Of these four every step up to the sixth
    spends 10 / 3 on reach, lower = 0.4 (3 / 10)**(steps - 1), and every later one 2.5; what is left goes into accuracy.
    So another step improves both ends: singular values within the interval, whose worst error in exact arithmetic falls
    from 0.015 at one step to 0.004 at five and 8e-5 at seven, and those below, which come nearer to 1. One to three
    steps end where the error is 0.015, so that no result has a singular value above 1.02. In half precision each step
    gives up 8 % of its growth to rounding, and the interval ends at about u / 4; in float32 it ends at 27 u, above the
    noise of its sums. Spectra that reach below keep a larger error there. The two constants are a compromise between
    Gaussian matrices and momenta, whose smallest singular values are 100 to 100,000 times smaller than the largest:
    benchmarks/matfun/msign_lower.py measures the price of it on either side (no record yet).
    """
    few = _FEW[steps - 1] if steps <= len(_FEW) else 0.0
    lower = _FIRST / _REACH ** (min(steps, _TURN) - 1) / _REACH_LATER ** min(max(steps - _TURN, 0), 99)
    if dtype.itemsize == 2:
        lower *= _HALF ** (steps - 1)
    return max(lower, few, least_lower(dtype))


def least_lower(dtype: torch.dtype) -> float:
    """Return the smallest lower end worth a design: below it rounding decides what becomes of a singular value."""
    return (_LEAST_HALF if dtype.itemsize == 2 else _LEAST) * torch.finfo(dtype).eps / 2


def design(steps: int, *, dtype: torch.dtype = torch.float32) -> Schedule:
    """Return the composition of quintics that ``msign(steps=)`` and ``optim.Muon(steps=)`` apply in a dtype.

    It is designed for singular values from ``schedule.interval[0]`` of the largest on, and for the rounding of the
    dtype; what lies below is raised part of the way, and the smallest directions are finished after the last step.
    ValueError for steps outside of 1 to 60. Cost: a tenth of a second or two where neither table nor cache has it.
    Source: benchmarks/matfun/msign_lower.py (no record yet) for the intervals, `spectrain.approx.sign_schedule` for the
    polynomials.

    >>> schedule = design(5)
    >>> len(schedule.polynomials), 0.003 < schedule.interval[0] < 0.004, schedule.error < 0.004
    (5, True, True)
    """
    if dtype not in _NAMES:
        raise TypeError(f"design: dtype must be one of {', '.join(map(str, _NAMES))}, got {dtype}")
    return schedule_for_steps(steps, dtype)


@constant_in_graphs
def schedule_for_steps(steps: int, dtype: torch.dtype, lower: float | None = None) -> Schedule:
    """Return the composition of ``steps`` optimal quintics that ``msign(steps=)`` applies in a working dtype.

    The schedule is designed for the rounding of that dtype: in bfloat16 the exact optimum leaves its interval after a
    few steps and grows without bound (tests/matfun/test_iterate.py).
    """
    return _schedule_of(steps, dtype, design_lower(steps, dtype) if lower is None else lower)


@functools.lru_cache(maxsize=256)
def _schedule_of(steps: int, dtype: torch.dtype, lower: float) -> Schedule:
    return sign_schedule(lower, steps=steps, dtype=_NAMES[dtype])


@constant_in_graphs
def safe_schedule(schedule: Schedule, dtype: torch.dtype) -> Schedule:
    """Return the schedule, or where rounding in dtype could carry values out of its intervals one that is safe there.

    Every step but the last is made smaller by what rounding adds at most
    (`spectrain.approx._schedules.guard`): by 1e-6 in float32 for an exactly optimal schedule, in bfloat16 by
    2 to 7 %.
    """
    return guarded_schedule(schedule, torch.finfo(dtype).eps / 2)


@constant_in_graphs
def able_dtype(schedule: Schedule, dtype: torch.dtype) -> torch.dtype:
    """Return dtype, or the first wider one in which rounding adds at most 0.02 (0.06 in half precision) to a result.

    Quintics can be evaluated in every dtype. The coefficients of longer polynomials alternate and grow: of degree 25 on
    [0.1, 1] float32 would make 1.95 of 1. ValueError where float64 is not able to, as for degree 41 on [0.01, 1].
    """
    return _able(schedule, dtype)


@functools.lru_cache(maxsize=256)
def _able(schedule: Schedule, dtype: torch.dtype) -> torch.dtype:
    top, _ = largest_values(schedule, 0.0)
    for able in (dtype, torch.float32, torch.float64):
        if able.itemsize >= dtype.itemsize:
            u = torch.finfo(able).eps / 2
            kept, most = largest_values(guarded_schedule(schedule, u), u)
            if kept >= _KEPT * min(top, 1.0) and most - kept <= (_ROOM_HALF if able.itemsize == 2 else _ROOM):
                return able
    raise ValueError(
        f"msign: the schedule of degrees {', '.join(str(p.degree) for p in schedule.polynomials)} cannot be evaluated: "
        f"rounding may add {most - kept:.2g} to a singular value in float64; take lower degrees, and more steps"
    )


def working_dtype(requested: torch.dtype | None, inputs: torch.dtype, schedule: Schedule | None) -> torch.dtype:
    """Return the dtype of the iteration: as requested, else that of the input, or float32 if that is not safe.

    float16 inputs iterate in float32: their range is too small for a square of a square. A schedule that was
    designed for a wider dtype than that of the input moves the iteration to float32.
    """
    if requested is not None:
        return requested
    if inputs == torch.float16:
        return torch.float32
    if schedule is not None and inputs == torch.bfloat16 and schedule.dtype != "bfloat16":
        return torch.float32
    return inputs
