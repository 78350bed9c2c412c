"""What flows through a model: inputs and outputs kept, or only their statistics."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._capture.capture import Capture as Capture
    from spectrain.nn._capture.capture import capture as capture
    from spectrain.nn._capture.statistics import Statistics as Statistics
    from spectrain.nn._capture.statistics import statistics as statistics
    from spectrain.nn._capture.tap import Tap as Tap

__getattr__, __dir__ = door(__name__)
