"""The schedules of ``steps=``, and the working dtype in which a schedule is safe."""

import functools

import torch

from spectrain.approx import Schedule, sign_schedule

_NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}


_FIRST, _REACH, _REACH_LATER, _TURN = 0.4, 10 / 3, 2.5, 6
_HALF_LEAST = 1e-3  # below it rounding to bfloat16 decides what becomes of a singular value


def design_lower(steps: int, dtype: torch.dtype = torch.float32) -> float:
    """Return the smallest singular value, relative to the largest, that ``steps=`` quintics are designed for.

    One more optimal quintic multiplies the slope at zero by four at most. Of these four every step up to the sixth
    spends 10 / 3 on reach, lower = 0.4 (3 / 10)**(steps - 1), and every later one 2.5; what is left goes into accuracy.
    So another step improves both ends: singular values within the interval, whose worst error in exact arithmetic
    falls from 0.04 at two steps to 0.004 at five and 2e-4 at seven, and those below, which come nearer to 1. In half
    precision the interval ends at 0.001. Spectra that reach below keep a larger error there. The two constants are a
    compromise between Gaussian matrices and momenta, whose smallest singular values are 100 to 100,000 times smaller
    than the largest: benchmarks/msign_lower.py has the price of it on either side.
    """
    lower = _FIRST / _REACH ** (min(steps, _TURN) - 1) / _REACH_LATER ** max(steps - _TURN, 0)
    return max(lower, _HALF_LEAST) if dtype.itemsize == 2 else lower


@torch.compiler.assume_constant_result
def schedule_for_steps(steps: int, dtype: torch.dtype, lower: float | None = None) -> Schedule:
    """Return the composition of ``steps`` optimal quintics that ``msign(steps=)`` applies in a working dtype.

    The schedule is designed for the rounding of that dtype: in bfloat16 the exact optimum leaves its interval after a
    few steps and grows without bound (tests/matfun/test_iterate.py).
    """
    return _designed(steps, dtype, design_lower(steps, dtype) if lower is None else lower)


@functools.lru_cache(maxsize=256)
def _designed(steps: int, dtype: torch.dtype, lower: float) -> Schedule:
    return sign_schedule(lower, steps=steps, dtype=_NAMES[dtype])


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
