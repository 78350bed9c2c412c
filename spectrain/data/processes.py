"""The same items in the same order, made by other processes."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._processes.generated import Generated as Generated
    from spectrain.data._processes.workers import WorkerError as WorkerError
    from spectrain.data._processes.workers import Workers as Workers

__getattr__, __dir__ = door(__name__)
