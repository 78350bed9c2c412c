"""Blocks of a language model: attention, feed-forward, the model itself, and activations captured."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._attention import Attention as Attention
    from spectrain.nn._balance import quantile_bias as quantile_bias
    from spectrain.nn._balance_loss import Penalty as Penalty
    from spectrain.nn._balance_rule import Balance as Balance
    from spectrain.nn._balance_rule import Loads as Loads
    from spectrain.nn._capture import Capture as Capture
    from spectrain.nn._capture import capture as capture
    from spectrain.nn._expert_loads import expert_loads as expert_loads
    from spectrain.nn._feed_forward import SwiGLU as SwiGLU
    from spectrain.nn._generation import generate as generate
    from spectrain.nn._generation import stream as stream
    from spectrain.nn._hugging_face import from_hugging_face as from_hugging_face
    from spectrain.nn._hugging_face import to_hugging_face as to_hugging_face
    from spectrain.nn._image_transformer import ImageTransformer as ImageTransformer
    from spectrain.nn._language_model import LanguageModel as LanguageModel
    from spectrain.nn._language_model import initialise as initialise
    from spectrain.nn._moe import MoE as MoE
    from spectrain.nn._moe import auxiliary_loss as auxiliary_loss
    from spectrain.nn._moe_scale import scaling_factor as scaling_factor
    from spectrain.nn._rotary import Rotary as Rotary
    from spectrain.nn._soft_topk import soft_topk as soft_topk
    from spectrain.nn._statistics import Statistics as Statistics
    from spectrain.nn._statistics import statistics as statistics
    from spectrain.nn._tap import Tap as Tap
    from spectrain.nn._text_encoder import TextEncoder as TextEncoder
    from spectrain.nn._to_latent import to_latent as to_latent

__getattr__, __dir__ = door(
    __name__,
    {
        "Attention": "_attention",
        "Capture": "_capture",
        "ImageTransformer": "_image_transformer",
        "LanguageModel": "_language_model",
        "Rotary": "_rotary",
        "Statistics": "_statistics",
        "SwiGLU": "_feed_forward",
        "Tap": "_tap",
        "capture": "_capture",
        "expert_loads": "_expert_loads",
        "from_hugging_face": "_hugging_face",
        "generate": "_generation",
        "initialise": "_language_model",
        "TextEncoder": "_text_encoder",
        "soft_topk": "_soft_topk",
        "statistics": "_statistics",
        "stream": "_generation",
        "Balance": "_balance_rule",
        "Loads": "_balance_rule",
        "MoE": "_moe",
        "Penalty": "_balance_loss",
        "auxiliary_loss": "_moe",
        "scaling_factor": "_moe_scale",
        "quantile_bias": "_balance",
        "to_hugging_face": "_hugging_face",
        "to_latent": "_to_latent",
    },
)
