"""Blocks of a language model: attention, feed-forward, the model itself, and activations captured."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn import activations as activations
    from spectrain.nn import attention as attention
    from spectrain.nn import experts as experts
    from spectrain.nn import models as models
    from spectrain.nn._attention.attention import Attention as Attention
    from spectrain.nn._capture.capture import capture as capture
    from spectrain.nn._experts.moe import MoE as MoE
    from spectrain.nn._hugging_face.models import from_hugging_face as from_hugging_face
    from spectrain.nn._hugging_face.models import to_hugging_face as to_hugging_face
    from spectrain.nn._models.generation import generate as generate
    from spectrain.nn._models.generation import stream as stream
    from spectrain.nn._models.image_transformer import ImageTransformer as ImageTransformer
    from spectrain.nn._models.language_model import LanguageModel as LanguageModel
    from spectrain.nn._models.text_encoder import TextEncoder as TextEncoder
    from spectrain.nn._topk.soft_topk import soft_topk as soft_topk

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "Capture": "activations.Capture",
    "Statistics": "activations.Statistics",
    "statistics": "activations.statistics",
    "Tap": "activations.Tap",
    "Rotary": "attention.Rotary",
    "to_latent": "attention.to_latent",
    "auxiliary_loss": "experts.auxiliary_loss",
    "Balance": "experts.Balance",
    "expert_loads": "experts.expert_loads",
    "Loads": "experts.Loads",
    "Penalty": "experts.Penalty",
    "quantile_bias": "experts.quantile_bias",
    "scaling_factor": "experts.scaling_factor",
    "initialise": "models.initialise",
    "SwiGLU": "models.SwiGLU",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.nn._attention.rotary import Rotary as Rotary
    from spectrain.nn._attention.to_latent import to_latent as to_latent
    from spectrain.nn._capture.capture import Capture as Capture
    from spectrain.nn._capture.statistics import Statistics as Statistics
    from spectrain.nn._capture.statistics import statistics as statistics
    from spectrain.nn._capture.tap import Tap as Tap
    from spectrain.nn._experts.balance import Balance as Balance
    from spectrain.nn._experts.balance import Loads as Loads
    from spectrain.nn._experts.balance import quantile_bias as quantile_bias
    from spectrain.nn._experts.loads import expert_loads as expert_loads
    from spectrain.nn._experts.moe import auxiliary_loss as auxiliary_loss
    from spectrain.nn._experts.penalty import Penalty as Penalty
    from spectrain.nn._experts.scaling import scaling_factor as scaling_factor
    from spectrain.nn._models.language_model import SwiGLU as SwiGLU
    from spectrain.nn._models.language_model import initialise as initialise

__getattr__, __dir__ = door(__name__, moved=_MOVED)
