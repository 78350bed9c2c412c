"""The one way a layer opens: names load on first use, so that importing a layer costs nothing."""

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.abc import InspectLoader


def door(layer: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of PEP 562 for a layer.

    There is one list: the imports under ``TYPE_CHECKING`` in the layer's own source, which type checkers read and
    which are carried out here, one by one, when somebody asks for the name.
    """
    homes = _promised(layer)

    def __getattr__(name: str) -> object:  # noqa: N807 - the hook of PEP 562
        if name not in homes:
            raise AttributeError(f"module {layer!r} has no name {name!r}; it has: {', '.join(sorted(homes))}")
        value = _load(homes[name], name)
        setattr(importlib.import_module(layer), name, value)
        return value

    return __getattr__, lambda: sorted(homes)


def _load(home: str, name: str) -> object:
    """A name of a module, or a module of a package."""
    module = importlib.import_module(home)
    inside = hasattr(module, "__path__") and name not in vars(module)
    return importlib.import_module(f"{home}.{name}") if inside else getattr(module, name)


def _promised(layer: str) -> dict[str, str]:
    """The module of each name that the source of a layer imports under ``TYPE_CHECKING``."""
    spec = sys.modules[layer].__spec__
    source = spec.loader.get_source(layer) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    if source is None:
        raise ImportError(f"{layer}: its names are read from its source, which is not here; install the .py files too")
    promised = next(
        n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    imports = [n for n in promised.body if isinstance(n, ast.ImportFrom)]
    return {alias.name: str(n.module) for n in imports for alias in n.names}
