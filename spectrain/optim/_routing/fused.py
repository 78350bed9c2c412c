"""How fused and stacked weights of known modules are divided, read from what the module says of itself.

Each function takes the module, the parameter and the layout that its own type gives, and returns the layout divided,
or None where the module's sizes and the shape do not fit together: then nothing is assumed.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from spectrain.optim._layout.matrix import Matrix

Cut = Callable[[nn.Module, Tensor, Matrix], Matrix | None]

HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_heads")
HEAD_SIZES = ("head_dim", "head_size", "attention_head_size", "dim_head")
FEW = 3  # pieces that are named by their sizes; more of them by their number


def equal(count: int) -> Cut:
    """Cut into ``count`` pieces of equal size along the output."""

    def cut(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
        out = _rows(p, base)
        return None if out % count else _divided(base, (out // count,) * count)

    return cut


def pieces_of(name: str) -> Cut:
    """Cut into pieces of the size that the module keeps under ``name``."""

    def cut(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
        out, size = _rows(p, base), _said(module, (name,))
        return None if not size or out % size else _divided(base, (size,) * (out // size))

    return cut


def sizes_of(*names: str) -> Cut:
    """Cut into pieces of the sizes that the module keeps under these names."""

    def cut(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
        sizes = tuple(_said(module, (name,)) for name in names)
        return _divided(base, sizes) if all(sizes) and sum(sizes) == _rows(p, base) else None

    return cut


def q_k_v(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """Query rows, then key rows, then value rows, of grouped heads too."""
    heads, keys, size = _attention(module)
    sizes = (heads * size, keys * size, keys * size)
    return _divided(base, sizes) if size and sum(sizes) == _rows(p, base) else None


def by_head(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """Query, key and value rows in turns, head by head: each head's are matrices of their own."""
    heads, keys, size = _attention(module)
    count = heads + 2 * keys
    return _divided(base, (size,) * count) if size and size * count == _rows(p, base) else None


def as_wide_as_heads(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """Cut into as many pieces as fit of the width of all heads: two where only keys and values are computed."""
    heads, _, size = _attention(module)
    width, out = heads * size, _rows(p, base)
    return None if not width or out % width else _divided(base, (width,) * (out // width))


def by_head_if_first(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """As ``by_head`` where the module says ``head_first``, else query, key and value one after the other."""
    return (by_head if getattr(module, "head_first", True) else q_k_v)(module, p, base)


def key_key_value(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """As ``by_head``, where values have another size than queries and keys."""
    sizes = tuple(_said(module, (name,)) for name in ("key_dim", "key_dim", "val_dim")) * _said(module, HEADS)
    return _divided(base, sizes) if sizes and sum(sizes) == _rows(p, base) else None


def stacked(*, transposed: bool = False, fused: int = 1) -> Cut:
    """Experts side by side in the first dimension, each of ``fused`` equal pieces along the output."""

    def cut(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
        out = p.shape[-1] if transposed else p.shape[-2]
        if p.ndim != 3 or out % fused:
            return None
        return Matrix(batch=1, transposed=transposed, split=(out // fused,) * fused if fused > 1 else ())

    return cut


def stated_experts(module: nn.Module, p: Tensor, base: Matrix) -> Matrix | None:
    """Experts whose module states ``is_transposed``, ``has_gate`` and ``is_concatenated``.

    Gate and up are divided where they stand one after the other; in turns (gpt-oss) they are one matrix.
    """
    if not isinstance(transposed := getattr(module, "is_transposed", None), bool):
        return None
    gated = p is getattr(module, "gate_up_proj", None) and module.has_gate and module.is_concatenated
    return stacked(transposed=transposed, fused=2 if gated else 1)(module, p, base)


def _attention(module: nn.Module) -> tuple[int, int, int]:
    """Numbers of query heads and key heads, and the size of one; zeros where the module does not say."""
    heads = _said(module, HEADS)
    size = _said(module, HEAD_SIZES) or (_said(module, ("hidden_size",)) // heads if heads else 0)
    return heads, _said(module, KEY_HEADS) or heads, size


def _said(module: nn.Module, names: tuple[str, ...]) -> int:
    """The first whole number that the module, or else its configuration, keeps under one of the names; else 0."""
    found = (getattr(place, name, None) for place in (module, getattr(module, "config", None)) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), 0)


def _rows(p: Tensor, base: Matrix) -> int:
    """Rows of the whole weight, seen out x in."""
    return replace(base, split=(), heads=()).shapes(p.shape)[0][0]


def _divided(base: Matrix, sizes: tuple[int, ...]) -> Matrix:
    if len(sizes) > FEW and len(set(sizes)) == 1 and not base.transposed and base.groups == 1:
        return replace(base, groups=len(sizes))
    return replace(base, split=sizes)
