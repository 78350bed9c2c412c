"""The first tensor in what a module returns, whatever holds it, and the same output with another in its place."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

Put = Callable[[Any], Any]


def first_tensor(output: object) -> tuple[Tensor, Put] | None:
    """The tensor, and what makes an output of the same type with another one there; None where there is none.

    Looked through, in their order and to any depth: tuples and lists, named or not, mappings (dictionaries and the
    outputs of transformers among them) and dataclasses.

    >>> import torch
    >>> found, put = first_tensor({"loss": None, "last": (torch.zeros(2), "more")})
    >>> found.tolist(), put("another")
    ([0.0, 0.0], {'loss': None, 'last': ('another', 'more')})
    """
    if isinstance(output, Tensor):
        return output, lambda new: new
    for key, item, put in _items(output):
        found = first_tensor(item)
        if found is not None:
            return found[0], _nest(put, key, found[1])
    return None


def _nest(outer: Callable[[Any, Any], Any], key: Any, inner: Put) -> Put:
    return lambda new: outer(key, inner(new))


def _items(output: Any) -> Iterator[tuple[Any, Any, Callable[[Any, Any], Any]]]:
    """Places in an output, what is there, and what puts something else there into a copy."""
    if isinstance(output, Mapping):  # before dataclasses: transformers' outputs are both
        yield from ((key, item, lambda key, new: _put_item(output, key, new)) for key, item in output.items())
    elif isinstance(output, (tuple, list)):
        yield from ((i, item, lambda i, new: _put_place(output, i, new)) for i, item in enumerate(output))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield field.name, getattr(output, field.name, None), lambda name, new: _put_field(output, name, new)


def _put_item(output: Any, key: Any, new: Any) -> Any:
    changed = copy.copy(output)
    changed[key] = new
    return changed


def _put_place(output: Any, place: int, new: Any) -> Any:
    items = [*output[:place], new, *output[place + 1 :]]
    return output._make(items) if hasattr(output, "_make") else type(output)(items)


def _put_field(output: Any, name: str, new: Any) -> Any:
    changed = copy.copy(output)
    object.__setattr__(changed, name, new)  # also of a frozen one
    return changed
