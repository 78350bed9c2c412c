"""What training takes from behind this door: the names and sizes of attention, without torch; folders of others.

Semi-public.
Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._attention import kinds as kinds
    from spectrain.nn._attention.scaling import read_scaling as read_scaling
    from spectrain.nn._attention.scaling import write_scaling as write_scaling
    from spectrain.nn._eager import as_elsewhere as as_elsewhere
    from spectrain.nn._hugging_face.config import config_of as config_of
    from spectrain.nn._hugging_face.config import family_for as family_for
    from spectrain.nn._hugging_face.families import Family as Family
    from spectrain.nn._hugging_face.models import Pretrained as Pretrained
    from spectrain.nn._hugging_face.models import read_folder as read_folder
    from spectrain.nn._hugging_face.peft import read_adapter as read_adapter
    from spectrain.nn._hugging_face.peft import write_adapter as write_adapter

__getattr__, __dir__ = door(__name__)
