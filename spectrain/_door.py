"""The one way a layer and its rooms open: names load on first use, so that importing a layer costs nothing."""

import ast
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping

from spectrain._extras import wanted_by


def door(place: str, moved: Mapping[str, str] | None = None) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of PEP 562 for a layer or for a public room of one.

    There is one list: the first imports under ``TYPE_CHECKING`` in the source of the place. Type checkers read it, and
    they are carried out here, one by one, when somebody asks for the name. ``moved``: old names, and where under the
    place they are now; they warn, and work for one release.
    """
    homes, old = _names_of(place), moved or {}

    def __getattr__(name: str) -> object:  # noqa: N807 - the hook of PEP 562
        if name in old:
            return _warn_and_load(place, name, old[name])
        if name not in homes:
            raise AttributeError(f"module {place!r} has no name {name!r}; it has: {', '.join(sorted(homes))}")
        with wanted_by(f"{place}.{name}"):
            value = _load(place, homes[name], name)
        setattr(importlib.import_module(place), name, value)
        return value

    return __getattr__, lambda: sorted(homes)


def _load(place: str, home: str, name: str) -> object:
    """A name of a module, or a module of a package, as rooms are."""
    module = importlib.import_module(home)
    inside = hasattr(module, "__path__") and name not in vars(module)
    # Asking a place for its own room would end here again, without end.
    return importlib.import_module(f"{home}.{name}") if home == place or inside else getattr(module, name)


def _warn_and_load(place: str, name: str, now: str) -> object:
    """What an old name meant, after a warning that names the new one."""
    warnings.warn(
        f"{place}.{name} is {place}.{now} now; the old name goes with the next release.",
        DeprecationWarning,
        stacklevel=3,  # the line that asked
    )
    room, _, found = now.rpartition(".")
    return getattr(importlib.import_module(f"{place}.{room}" if room else place), found)


def _names_of(place: str) -> dict[str, str]:
    """The module of each name that the source of a place imports under ``TYPE_CHECKING``."""
    spec = sys.modules[place].__spec__
    read = getattr(spec.loader, "get_source", None) if spec is not None else None  # of a file, of a zip
    source = read(place) if read is not None else None
    if source is None:
        raise ImportError(f"{place}: its names are read from its source, which is not here; install the .py files too")
    promised = next(
        n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    imports = [n for n in promised.body if isinstance(n, ast.ImportFrom)]
    return {alias.name: str(n.module) for n in imports for alias in n.names}
