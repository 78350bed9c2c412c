"""The schedules of ``steps=``, and the working dtype in which a schedule is safe."""

import functools

import torch

from spectrain.approx import Schedule, sign_schedule

_NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}


def design_lower(steps: int) -> float:
    """Return the smallest singular value, relative to the largest, that ``steps=`` quintics are designed for.

    max(0.5 / 4**(steps - 1), 0.001). One more optimal quintic multiplies the slope at zero by four at most, hence the
    power; the worst error on [lower, 1] in exact arithmetic is then near 0.03 up to five steps. From six on, further
    steps buy accuracy: 9e-4, then 5e-10. Spectra that reach below keep a larger error there.
    """
    return max(0.5 / 4 ** (steps - 1), 1e-3)


@torch.compiler.assume_constant_result
def schedule_for_steps(steps: int, dtype: torch.dtype, lower: float | None = None) -> Schedule:
    """Return the composition of ``steps`` optimal quintics that ``msign(steps=)`` applies in a working dtype.

    The schedule is designed for the rounding of that dtype: in bfloat16 the exact optimum leaves its interval after a
    few steps and grows without bound (tests/matfun/test_iterate.py).
    """
    return _designed(steps, dtype, design_lower(steps) if lower is None else lower)


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
