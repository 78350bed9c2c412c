"""What other layers of this package take from behind this door: rounding of compositions. Semi-public: it may change.

Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.approx._schedules.cuts import MOST_CUTS as MOST_CUTS
    from spectrain.approx._schedules.cuts import fewest_cuts as fewest_cuts
    from spectrain.approx._schedules.guard import guarded_schedule as guarded_schedule
    from spectrain.approx._schedules.guard import largest_values as largest_values
    from spectrain.approx._schedules.root import MOST_STEPS as MOST_STEPS
    from spectrain.approx._schedules.widened import Steps as Steps
    from spectrain.approx._schedules.widened import odd_coefficients as odd_coefficients
    from spectrain.approx._schedules.widened import odd_part as odd_part

__getattr__, __dir__ = door(__name__)
