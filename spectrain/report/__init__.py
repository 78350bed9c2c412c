"""Run folders in, one self-contained HTML page out. Knows files, not trainers; loads no torch."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.report._page import write as write
    from spectrain.report._reading.run import Run as Run
    from spectrain.report._reading.run import read as read
    from spectrain.report._watch import Watch as Watch

__getattr__, __dir__ = door(__name__)
