"""Schedules for common settings, frozen in ``tables.py``: how they are looked up and written."""

from collections.abc import Callable

from spectrain.approx._schedule import Schedule
from spectrain.approx._setting import Setting

_LEAST = 0.26 * 2.0**-8  # in bfloat16 rounding decides what becomes of a smaller singular value


def _first_step(steps: int, dtype: str) -> Setting:
    """What optim.Muon asks for in a first step: its interval begins where matfun.planning.design says."""
    lower = 0.4 / (10 / 3) ** (min(steps, 6) - 1) / 2.5 ** max(steps - 6, 0)
    lower = max(lower * 1.08 ** (steps - 1), _LEAST) if dtype == "bfloat16" else lower
    return Setting(lower=0.045 if steps == 3 else lower, steps=steps, dtype=dtype)


def _candidates(dtype: str) -> tuple[Setting, ...]:
    """What ``msign(steps=5, lower="measured")`` tries besides: matfun._iteration.measured says which lower ends."""
    default = _first_step(5, dtype).lower
    return tuple([Setting(lower=default * 1.5**i, steps=5, dtype=dtype) for i in range(6, -4, -1) if i])


SETTINGS: tuple[Setting, ...] = (
    *(Setting(lower=1e-3, steps=steps) for steps in (5, 6, 7, 8)),
    *(Setting(lower=1e-2, steps=steps) for steps in (4, 5, 6)),
    Setting(lower=1e-3, steps=8, cushion=0.02407327424182761),
    *(Setting(lower=1e-3, products=products) for products in (15, 18, 21)),
    *(_first_step(steps, dtype) for dtype in ("float32", "bfloat16", "float64") for steps in range(3, 9)),
    *(setting for dtype in ("float32", "bfloat16") for setting in _candidates(dtype)),
)
"""What is frozen."""


def frozen_schedule(setting: Setting) -> Schedule | None:
    """The frozen schedule of a setting, if there is one."""
    from spectrain.approx.tables import TABLES

    return TABLES.get(setting)


def table_text(design: Callable[[Setting], Schedule]) -> str:
    """The text of ``tables.py``, every schedule computed afresh."""
    return _HEAD + "TABLES = {\n" + "".join(_row(setting, design(setting)) for setting in SETTINGS) + "}\n"


def _row(setting: Setting, schedule: Schedule) -> str:
    steps = "".join(f"            Polynomial({p.powers}, {p.coefficients}),\n" for p in schedule.polynomials)
    pairs = "".join(f"            {pair},\n" for pair in schedule.intervals)
    return (
        f"    {setting}: Schedule(\n        polynomials=(\n{steps}        ),\n        error={schedule.error!r},\n"
        f"        products={schedule.products!r},\n        interval={schedule.interval!r},\n"
        f"        dtype={schedule.dtype!r},\n        intervals=(\n{pairs}        ),\n"
        f"        target={schedule.target!r},\n        reached={schedule.reached!r},\n    ),\n"
    )


_HEAD = '''# ruff: noqa: E501
# fmt: off
"""Frozen schedules: written by ``python -m spectrain.approx``, recomputed by ``tests/approx/test_tables.py``."""

from spectrain.approx._polynomial import Polynomial
from spectrain.approx._schedule import Schedule
from spectrain.approx._setting import Setting

'''
