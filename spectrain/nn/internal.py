"""What training takes from behind this door: the names and sizes of attention, without torch. Semi-public.

Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._attention import kinds as kinds

__getattr__, __dir__ = door(__name__)
