"""What the command takes from behind this door: configurations, claimed folders, what studies say. Semi-public.

Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train._jobs.large import workers_here as workers_here
    from spectrain.train._jobs.pace import Pace as Pace
    from spectrain.train._jobs.pretrained import GENERATION as GENERATION
    from spectrain.train._jobs.pretrained import tokenizer_file as tokenizer_file
    from spectrain.train._mesh.environment import follows as follows
    from spectrain.train._mesh.environment import started as started
    from spectrain.train._mesh.failing import Elsewhere as Elsewhere
    from spectrain.train._mesh.failing import is_told as is_told
    from spectrain.train._mesh.join import joined as joined
    from spectrain.train._mesh.layout import layout as layout
    from spectrain.train._plan.measure import measure_cluster as measure_cluster
    from spectrain.train._run.claim import LOCK as LOCK
    from spectrain.train._run.claim import claimed as claimed
    from spectrain.train._run.claim import named_folder as named_folder
    from spectrain.train._run.config import Config as Config
    from spectrain.train._run.config import RunConfig as RunConfig
    from spectrain.train._run.jobs import TRAINERS as TRAINERS
    from spectrain.train._run.jobs import config_class as config_class
    from spectrain.train._run.machine import choose_device as choose_device
    from spectrain.train._run.optimizers import OPTIMIZERS as OPTIMIZERS
    from spectrain.train._run.recorded import check_same as check_same
    from spectrain.train._run.recorded import free_of as free_of
    from spectrain.train._run.recorded import fresh_config as fresh_config
    from spectrain.train._run.recorded import in_folder as in_folder
    from spectrain.train._run.recorded import read_config as read_config
    from spectrain.train._saved.search import Search as Search
    from spectrain.train._studies.check import check_config as check_config
    from spectrain.train._studies.check_config import CheckConfig as CheckConfig
    from spectrain.train._studies.check_config import TransferConfig as TransferConfig
    from spectrain.train._studies.lr_transfer import mean_losses as mean_losses
    from spectrain.train._studies.ratio import in_words as in_words
    from spectrain.train._studies.settings import SHORT as SHORT

__getattr__, __dir__ = door(__name__)
