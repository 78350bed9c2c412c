"""Batches as functions of a seed and the step."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._generator import generator as generator
    from spectrain.data._streams.index import IndexStream as IndexStream
    from spectrain.data._streams.mixture import Mixture as Mixture
    from spectrain.data._streams.packed import PackedStream as PackedStream
    from spectrain.data._streams.tokens import TokenStream as TokenStream
    from spectrain.data._streams.validation import validation_batches as validation_batches

__getattr__, __dir__ = door(__name__)
