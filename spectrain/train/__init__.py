"""From a configuration to a trained model: the run, its folder, checkpoints, comparisons."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train import planning as planning
    from spectrain.train import runs as runs
    from spectrain.train import studies as studies
    from spectrain.train._compress.compress import compress as compress
    from spectrain.train._jobs.own import Job as Job
    from spectrain.train._jobs.own_config import JobConfig as JobConfig
    from spectrain.train._run.checkpoint import checkpoints as checkpoints
    from spectrain.train._run.loop import train as train
    from spectrain.train._saved.factored import principal_adapter as principal_adapter
    from spectrain.train._saved.load import TrainedRun as TrainedRun
    from spectrain.train._saved.load import load_run as load_run
    from spectrain.train._studies.check import check as check
    from spectrain.train._studies.compare import compare as compare
    from spectrain.train._studies.scaling import compare_depths as compare_depths
    from spectrain.train.config import TrainConfig as TrainConfig

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "polynomials": "runs.polynomials",
    "Progress": "runs.Progress",
    "StopRequest": "runs.StopRequest",
    "lr_transfer": "studies.lr_transfer",
    "Member": "studies.Member",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.train._run.optimizer import polynomials as polynomials
    from spectrain.train._run.progress import Progress as Progress
    from spectrain.train._run.signals import StopRequest as StopRequest
    from spectrain.train._studies.lr_transfer import lr_transfer as lr_transfer
    from spectrain.train._studies.measure import Member as Member

__getattr__, __dir__ = door(__name__, moved=_MOVED)
