"""A kind of attention under the name that ``spectrain train --attention`` gives it. Standard library only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectrain.nn._attention.kind import Kind


def _nothing(width: int, heads: int, block: int) -> list[tuple[str, object, str]]:
    return []


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a configuration must know of a kind; those of `spectrain.nn._attention.kinds` can be chosen.

    ``arguments`` are those of :class:`Attention` that make it this kind; ``sizes`` name further ones, flags as well,
    that belong to it alone. ``kv_heads(heads)`` are the key heads where the name fixes them, for the reason ``why``;
    None leaves them to the caller. ``defaults(width, heads, block)`` are fields, values and reasons for what was left
    open. ``fixed`` names the maps whose outputs do not grow with the width (see ``--parametrisation mup``).
    """

    kind: "type[Kind]"
    arguments: Mapping[str, object] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()
    kv_heads: Callable[[int], int] | None = None
    why: str = ""
    defaults: Callable[[int, int, int], list[tuple[str, object, str]]] = _nothing
    fixed: tuple[str, ...] = ()

    def key_heads(self, heads: int) -> tuple[int, str]:
        """The heads of keys and values that go with so many heads, and why."""
        if self.kv_heads is not None:
            return self.kv_heads(heads), self.why
        if heads % 2:
            return heads, "heads is odd"
        return heads // 2, "half of the heads: half the cache, hardly any loss"
