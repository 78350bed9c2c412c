"""Losses of tensors or of callables; never of model classes."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.objectives._likelihood import bits_per_byte as bits_per_byte
    from spectrain.objectives._likelihood import negative_log_likelihood as negative_log_likelihood

__getattr__, __dir__ = door(__name__, {"bits_per_byte": "_likelihood", "negative_log_likelihood": "_likelihood"})
