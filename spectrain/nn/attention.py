"""Attention and its parts: rotary positions, and the change from a cache of keys and values to a latent one."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention as Attention
    from spectrain.nn._attention.peak import attention_blocks as attention_blocks
    from spectrain.nn._attention.peak import largest_logits as largest_logits
    from spectrain.nn._attention.peak import watch_logits as watch_logits
    from spectrain.nn._attention.rotary import Rotary as Rotary
    from spectrain.nn._attention.scaling import LinearScaling as LinearScaling
    from spectrain.nn._attention.scaling import Llama3Scaling as Llama3Scaling
    from spectrain.nn._attention.scaling import YarnScaling as YarnScaling
    from spectrain.nn._attention.scaling import read_scaling as read_scaling
    from spectrain.nn._attention.scaling import write_scaling as write_scaling
    from spectrain.nn._attention.to_latent import to_latent as to_latent

__getattr__, __dir__ = door(__name__)
