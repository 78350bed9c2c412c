"""One run: its configuration, its loop, how it is watched and stopped, and what it leaves."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train._jobs.own import Job as Job
    from spectrain.train._jobs.own_config import JobConfig as JobConfig
    from spectrain.train._run.callbacks import CallbackError as CallbackError
    from spectrain.train._run.callbacks import Moment as Moment
    from spectrain.train._run.checkpoint import checkpoints as checkpoints
    from spectrain.train._run.loop import train as train
    from spectrain.train._run.optimizer import polynomials as polynomials
    from spectrain.train._run.progress import Progress as Progress
    from spectrain.train._run.signals import StopRequest as StopRequest
    from spectrain.train._saved.factored import principal_adapter as principal_adapter
    from spectrain.train._saved.load import TrainedRun as TrainedRun
    from spectrain.train._saved.load import load_run as load_run
    from spectrain.train.config import TrainConfig as TrainConfig

__getattr__, __dir__ = door(__name__)
