"""What the report shows of the polynomials at work: sampled errors and alternation points."""

from typing import Any

from spectrain import approx


def polynomials(schedule: approx.Schedule, *, name: str) -> dict[str, Any]:
    """The content of ``polynomials.json``: a schedule, and for each step its error curve and alternation points.

    >>> step = polynomials(approx.sign_schedule(0.1, steps=1), name="one")["schedules"][0]["steps"][0]
    >>> sorted(step)
    ['coefficients', 'curve', 'error', 'interval', 'powers', 'reference']
    """
    facts = {key: getattr(schedule, key) for key in ("interval", "error", "reached", "products", "dtype", "target")}
    steps = [
        {
            "powers": curve.powers,
            "coefficients": curve.coefficients,
            "interval": curve.interval,
            "error": max(map(abs, curve.heights)),
            "curve": {"x": curve.x, "error": curve.error},
            "reference": curve.points,
        }
        for curve in approx.step_curves(schedule)
    ]
    return {"schedules": [{"name": name, **facts, "steps": steps}]}
