"""What a kind of attention is: the maps of keys and values, what decoding keeps of a token, what a query sees."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor, nn

from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.rotary import Turns
from spectrain.nn._attention.shape import AttentionShape, Share
from spectrain.nn._attention.visibility import Visibility

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention


class Kind(ABC):
    """Where keys and values come from and which of them a query sees. Queries and output are the block's own.

    A kind holds its own sizes and no weights: its maps are attributes of the block, by the names that ``maps`` gives
    them. It is a file of this room that ends in a `Choice`, and a line in `kinds`.
    """

    latent: int | None = None
    share: Share = "none"
    foreign: str = ""
    """What Hugging Face's formats cannot express, as a refusal names it; empty where they can."""
    no_latent: str = ""
    """Why no latent attention computes the same; empty where one does."""
    normalises_keys: ClassVar[bool] = True
    """Whether queries and keys of each head can be divided by their rms; it is the default then."""

    @classmethod
    @abstractmethod
    def from_sizes(cls, sizes: Mapping[str, object]) -> "Kind | None":
        """This kind, where the arguments of :class:`Attention` ask for it."""

    @abstractmethod
    def fill(
        self, per_head: int, *, head_dim: int | None, value_dim: int | None, rotary_dim: int | None
    ) -> tuple[int, int, int]:
        """``head_dim``, ``value_dim`` and ``rotary_dim``, with ``width / heads`` to begin from where one is open."""

    @abstractmethod
    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """Raise ``ValueError`` for sizes that do not fit together."""

    def extra_dim(self, shape: AttentionShape) -> int:
        """Coordinates of a value that no key holds already."""
        return shape.value_dim

    @abstractmethod
    def cache_numbers(self, shape: AttentionShape) -> int:
        """Numbers that decoding keeps for a token."""

    def reach(self, window: int | None) -> int | None:
        """Places in text that a query sees, however long it is; None where they grow with it.

        Within a reach that was trained on, text may go on for ever.
        """
        return None

    def absorbing_pays(self, shape: AttentionShape, length: int, stored: int) -> bool:
        """Whether ``length`` queries cost less on what is kept of ``stored`` tokens than on keys and values."""
        return False

    @abstractmethod
    def maps(
        self, shape: AttentionShape, width: int, *, norm: Callable[[int], nn.Module], bias: bool
    ) -> dict[str, nn.Module]:
        """The maps that make keys and values, in the order in which their weights are drawn."""

    @abstractmethod
    def keep(self, block: "Attention", x: Tensor, turns: Turns) -> tuple[Tensor, ...]:
        """What decoding keeps of each token, ``(batch, heads, length, numbers)`` each."""

    def ask_and_keep(self, block: "Attention", x: Tensor, turns: Turns) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Queries, normalised and rotated, and what :meth:`keep` keeps."""
        kept = self.keep(block, x, turns)
        return block.place(block.ask(x), block.shape.heads, block.query_gains, turns), kept

    @abstractmethod
    def clipped(self, block: "Attention") -> nn.Linear | None:
        """The map of keys that a head, or a group of heads, has to itself and no value shares: QK-clip shrinks it."""

    @abstractmethod
    def keys_and_values(self, block: "Attention", kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Keys and values, ``(batch, heads, stored, dim)`` each, from what is kept."""

    def empty_cache(self, shape: AttentionShape) -> Cache:
        """A cache of no tokens."""
        return Cache()

    def see(
        self, block: "Attention", kept: tuple[Tensor, ...], cache: Cache | None, documents: Tensor | None
    ) -> tuple[tuple[Tensor, ...], Visibility]:
        """Add what is kept to the cache; return all that is held, and which of it a query sees."""
        batch, _, length, _ = kept[0].shape
        if cache is not None:
            kept = cache.append(kept, window=block.window)
            documents = cache.documents(documents, batch=batch, length=length)
        stored, device = kept[0].shape[2], kept[0].device
        return kept, Visibility(length, stored, device, block.window, documents)

    @abstractmethod
    def attend(
        self,
        block: "Attention",
        q: Tensor,
        kept: tuple[Tensor, ...],
        visible: Visibility,
        *,
        turns: Turns,
        absorbed: bool | None,
    ) -> Tensor:
        """What each head says to each query, ``(batch, heads, length, value_dim)``."""


def normalise_wide(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise in the precision of the gains: under autocast ``x`` is narrower, which torch answers with a warning."""
    return cast(Tensor, norm(x.to(norm.weight.dtype) if isinstance(norm, nn.RMSNorm) else x))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(batch, length, heads dim)`` to ``(batch, heads, length, dim)``."""
    batch, length, wide = x.shape
    return x.view(batch, length, heads, wide // heads).transpose(1, 2)
