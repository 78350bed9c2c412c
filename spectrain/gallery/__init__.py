"""Classical problems, one file each, solved so that a machine can check the answer.

The files are found, not registered: ``gallery.kepler`` is the file ``kepler.py``, loaded on first use, and
``spectrain gallery`` lists them with the first line of each docstring.
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType


def etudes() -> dict[str, str]:
    """Each étude's name with the first line of its docstring, read without importing it.

    >>> sorted(etudes())
    ['curvature', 'hashing_inequality', 'kepler', 'product_sum', 'pursuit']
    """
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    docstrings = {file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) for file in files}
    return {name: (text or "").partition("\n")[0] for name, text in docstrings.items()}


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_") or not (Path(__file__).parent / f"{name}.py").is_file():
        raise AttributeError(f"module {__name__!r} has no étude {name!r}; it has: {', '.join(etudes())}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return ["etudes", *etudes()]
