"""The one way a layer opens: names load on first use, so that importing a layer costs nothing."""

import importlib
from collections.abc import Callable, Mapping


def door(layer: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of PEP 562 for a layer.

    ``homes`` maps each public name to the private file that defines it. The same names stand as
    imports under ``TYPE_CHECKING`` for type checkers; ``tests/test_doors.py`` holds the two equal.
    """

    def __getattr__(name: str) -> object:  # noqa: N807 - the hook of PEP 562
        if name not in homes:
            raise AttributeError(f"module {layer!r} has no name {name!r}; it has: {', '.join(sorted(homes))}")
        value = getattr(importlib.import_module(f"{layer}.{homes[name]}"), name)
        setattr(importlib.import_module(layer), name, value)
        return value

    return __getattr__, lambda: sorted(homes)
