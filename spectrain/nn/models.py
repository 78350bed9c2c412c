"""Whole models, their blocks and first weights, adapters beside these, texts drawn from models, and files of GGUF."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._gguf.write import to_gguf as to_gguf
    from spectrain.nn._models.adapter import AdaptedLinear as AdaptedLinear
    from spectrain.nn._models.adapter import adapt as adapt
    from spectrain.nn._models.adapter import merge as merge
    from spectrain.nn._models.generation import generate as generate
    from spectrain.nn._models.generation import stream as stream
    from spectrain.nn._models.image_transformer import ImageTransformer as ImageTransformer
    from spectrain.nn._models.language_model import LanguageModel as LanguageModel
    from spectrain.nn._models.language_model import SwiGLU as SwiGLU
    from spectrain.nn._models.language_model import initialise as initialise
    from spectrain.nn._models.text_encoder import TextEncoder as TextEncoder

__getattr__, __dir__ = door(__name__)
