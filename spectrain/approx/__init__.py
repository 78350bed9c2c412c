"""Best approximation with certificates: minimax polynomials and the schedules composed of them."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.approx import curves as curves
    from spectrain.approx._code import as_code as as_code
    from spectrain.approx._minimax.answer import Minimax as Minimax
    from spectrain.approx._minimax.certificate import enclose as enclose
    from spectrain.approx._minimax.minimax import minimax as minimax
    from spectrain.approx._minimax.theorem import equioscillates as equioscillates
    from spectrain.approx._polynomial import Polynomial as Polynomial
    from spectrain.approx._schedule import Schedule as Schedule
    from spectrain.approx._schedules.clip import clip_schedule as clip_schedule
    from spectrain.approx._schedules.clip import step_schedule as step_schedule
    from spectrain.approx._schedules.root import root_schedule as root_schedule
    from spectrain.approx._schedules.sign import sign_schedule as sign_schedule

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "error_curve": "curves.error_curve",
    "step_curves": "curves.step_curves",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.approx._curve import error_curve as error_curve
    from spectrain.approx._curve import step_curves as step_curves

__getattr__, __dir__ = door(__name__, moved=_MOVED)
