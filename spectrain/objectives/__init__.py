"""Losses of tensors or of callables; never of model classes."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.objectives._contrastive import Contrastive as Contrastive
    from spectrain.objectives._info_nce import info_nce as info_nce
    from spectrain.objectives._info_nce import supervised_contrastive as supervised_contrastive
    from spectrain.objectives._likelihood import bits_per_byte as bits_per_byte
    from spectrain.objectives._likelihood import negative_log_likelihood as negative_log_likelihood
    from spectrain.objectives._linear_likelihood import linear_negative_log_likelihood as linear_negative_log_likelihood
    from spectrain.objectives._meanflow import Drawn as Drawn
    from spectrain.objectives._meanflow import MeanFlow as MeanFlow
    from spectrain.objectives._verify import verify as verify

__getattr__, __dir__ = door(__name__)
