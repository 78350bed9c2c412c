"""Training as an average of its updates: the weight of each, and averages of the weights themselves."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim._averaging import averaging_coefficients as averaging_coefficients
    from spectrain.optim._averaging import schedule_from_coefficients as schedule_from_coefficients
    from spectrain.optim._averaging import weight_rms as weight_rms
    from spectrain.optim._weight_average import WeightAverage as WeightAverage

__getattr__, __dir__ = door(__name__)
