"""Errors of polynomials and of schedules as curves, and whether they alternate."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.approx._curve import error_curve as error_curve
    from spectrain.approx._curve import step_curves as step_curves
    from spectrain.approx._minimax.certificate import enclose as enclose
    from spectrain.approx._minimax.theorem import equioscillates as equioscillates

__getattr__, __dir__ = door(__name__)
