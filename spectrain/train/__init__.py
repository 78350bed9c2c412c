"""From a configuration to a trained model: the run, its folder, checkpoints, comparisons."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train._check import check as check
    from spectrain.train._checkpoint import checkpoints as checkpoints
    from spectrain.train._compare import compare as compare
    from spectrain.train._compress import compress as compress
    from spectrain.train._factored import principal_adapter as principal_adapter
    from spectrain.train._load import TrainedRun as TrainedRun
    from spectrain.train._load import load_run as load_run
    from spectrain.train._loop import train as train
    from spectrain.train._lr_transfer import lr_transfer as lr_transfer
    from spectrain.train._measure import Member as Member
    from spectrain.train._polynomials import polynomials as polynomials
    from spectrain.train._progress import Progress as Progress
    from spectrain.train._scaling import compare_depths as compare_depths
    from spectrain.train._signals import StopRequest as StopRequest
    from spectrain.train.config import TrainConfig as TrainConfig

__getattr__, __dir__ = door(
    __name__,
    {
        "Member": "_measure",
        "Progress": "_progress",
        "StopRequest": "_signals",
        "TrainConfig": "config",
        "TrainedRun": "_load",
        "check": "_check",
        "checkpoints": "_checkpoint",
        "compare": "_compare",
        "compare_depths": "_scaling",
        "compress": "_compress",
        "load_run": "_load",
        "lr_transfer": "_lr_transfer",
        "polynomials": "_polynomials",
        "principal_adapter": "_factored",
        "train": "_loop",
    },
)
