"""What the études take and return: a number, anything that is numbers, and arrays of doubles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = float | int | Sequence[Any] | NDArray[Any]
Real = float | int
