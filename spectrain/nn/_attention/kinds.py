"""The kinds of attention, by the names of ``spectrain train --attention``; a new one is a line here.

The names are known without torch; a kind is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, cast

from spectrain._door import door
from spectrain.nn._attention.choice import Choice

if TYPE_CHECKING:
    from spectrain.nn._attention.heads import gqa as gqa
    from spectrain.nn._attention.heads import mha as mha
    from spectrain.nn._attention.heads import mqa as mqa
    from spectrain.nn._attention.latent import mla as mla
    from spectrain.nn._attention.shared import s1 as s1
    from spectrain.nn._attention.shared import s2 as s2
    from spectrain.nn._attention.sinks import sinks as sinks

__getattr__, __dir__ = door(__name__)

NAMES: tuple[str, ...] = tuple(__dir__())


def choice(name: str) -> Choice:
    """Return the kind of this name.

    >>> choice("mqa").key_heads(8)
    (1, 'multi-query')
    """
    return cast(Choice, __getattr__(name))


def owner(size: str) -> str:
    """Return the name of the kind that has this size, an argument of :class:`Attention`, to itself.

    >>> owner("latent")
    'mla'
    """
    return next(name for name in NAMES if size in choice(name).sizes)
