"""Several runs that answer one question."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train._studies.check import check as check
    from spectrain.train._studies.compare import compare as compare
    from spectrain.train._studies.lr_transfer import lr_transfer as lr_transfer
    from spectrain.train._studies.measure import Member as Member
    from spectrain.train._studies.scaling import compare_depths as compare_depths

__getattr__, __dir__ = door(__name__)
