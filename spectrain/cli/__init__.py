"""One command, ``spectrain``: the only layer that sees all the others."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.cli._main import main as main

__getattr__, __dir__ = door(__name__)
