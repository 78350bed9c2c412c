"""Schedules for common settings, frozen in ``tables.py``: how they are looked up and written."""

from collections.abc import Callable, Mapping
from typing import Any

from spectrain.approx._schedule import Schedule

SETTINGS: tuple[Mapping[str, Any], ...] = tuple(
    [{"lower": 1e-3, "steps": steps} for steps in (5, 6, 7, 8)]
    + [{"lower": 1e-2, "steps": steps} for steps in (4, 5, 6)]
    + [{"lower": 1e-3, "steps": 8, "cushion": 0.02407327424182761}]
    + [{"lower": 1e-3, "products": products} for products in (15, 18, 21)]
)
"""What is frozen; names are arguments of `sign_schedule`, those left out have their default."""


def key_of(setting: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The setting as a dictionary key: defaults left out, numbers as they compare, names in order.

    >>> key_of({"steps": 5, "lower": 0.001, "upper": 1, "dtype": "float64"})
    (('lower', 0.001), ('steps', 5))
    """
    defaults = {
        "upper": 1.0, "steps": None, "products": None, "tol": None, "degree": 5, "cushion": 0.0, "margin": 1.0,
        "gram": False, "symmetric": False, "aspect": 1.0, "dtype": "float64",
    }  # fmt: skip
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in setting.items()}
    return tuple(sorted((k, v) for k, v in plain.items() if k not in defaults or v != defaults[k]))


def frozen(setting: Mapping[str, Any]) -> Schedule | None:
    """The frozen schedule of a setting, if there is one."""
    from spectrain.approx.tables import TABLES

    return TABLES.get(key_of(setting))


def written(compute: Callable[..., Schedule]) -> str:
    """The text of ``tables.py``, every schedule computed afresh."""
    rows = []
    for setting in SETTINGS:
        schedule = compute(**setting)
        steps = "".join(f"            Polynomial({p.powers}, {p.coefficients}),\n" for p in schedule.polynomials)
        pairs = "".join(f"            {pair},\n" for pair in schedule.intervals)
        rows.append(
            f"    {key_of(setting)}: Schedule(\n        polynomials=(\n{steps}        ),\n        "
            f"error={schedule.error!r},\n"
            f"        products={schedule.products!r},\n        interval={schedule.interval!r},\n"
            f"        dtype={schedule.dtype!r},\n        intervals=(\n{pairs}        ),\n"
            f"        target={schedule.target!r},\n        reached={schedule.reached!r},\n    ),\n"
        )
    return _HEAD + "TABLES = {\n" + "".join(rows) + "}\n"


_HEAD = '''# ruff: noqa: E501
# fmt: off
"""Frozen schedules: written by ``python -m spectrain.approx``, recomputed by ``tests/approx/test_tables.py``."""

from spectrain.approx._polynomial import Polynomial
from spectrain.approx._schedule import Schedule

'''
