"""Tensors inside of dictionaries and lists, by their path: what is written apart from the rest, and put back in."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its path, whose steps are keys and places.

    >>> import torch
    >>> [name for name, _ in tensors_in({"a": [torch.zeros(1)], "b": 2}, "job")]
    ['job/a/0']
    """
    if isinstance(value, Tensor):
        yield path, value
    for key, part in _parts(value):
        yield from tensors_in(part, f"{path}/{key}")


def without_tensors(value: Any) -> Any:
    """The same with None in the place of every tensor."""
    return None if isinstance(value, Tensor) else _mapped(value, lambda _, part: without_tensors(part))


def with_tensors(value: Any, path: str, found: Mapping[str, Tensor]) -> Any:
    """The same with ``found`` put in at their paths."""
    if path in found:
        return found[path]
    return _mapped(value, lambda key, part: with_tensors(part, f"{path}/{key}", found))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(key, part) for key, part in value.items()}
    return [change(i, part) for i, part in enumerate(value)] if isinstance(value, list) else value
