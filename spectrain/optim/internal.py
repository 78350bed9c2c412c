"""What training takes from behind this door: how parameters lie on ranks and travel, and bounds of whole matrices.

Semi-public.
Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim._layout.spread import Team as Team
    from spectrain.optim._layout.spread import local as local
    from spectrain.optim._layout.spread import sharding_of as sharding_of
    from spectrain.optim._layout.spread import spread_like as spread_like
    from spectrain.optim._ranks.exchange import Route as Route
    from spectrain.optim._ranks.exchange import begin as begin
    from spectrain.optim._step.bound import post_clip as post_clip
    from spectrain.optim._step.bound import pre_decay as pre_decay
    from spectrain.optim._step.settings import Settings as Settings

__getattr__, __dir__ = door(__name__)
