"""Hugging Face's families of models that are ours in other words: what each can say, and what its silence means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spectrain.nn._attention.attention import Bias, QKNorm
from spectrain.nn._models.language_model import Norms

_KV_HEADS = "num_key_value_heads"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One ``model_type``: settings that its models may have, and values of keys that a ``config.json`` leaves out."""

    name: str
    architecture: str
    biases: tuple[Bias, ...] = ("none",)
    """With several, ``attention_bias`` chooses between the first and the last."""
    feed_forward_bias: bool = False
    """Whether ``mlp_bias`` is a setting."""
    qk_norms: tuple[QKNorm, ...] = (False,)
    norms: Norms = "pre"
    window: Literal["none", "all", "layers"] = "none"
    """Where ``sliding_window`` holds: nowhere, in all blocks, or in those that ``layer_types`` names."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """From the configuration class of transformers; a key that stands here is one of the family's own."""


_WINDOWED = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}
LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    biases=("none", "all"),
    feed_forward_bias=True,
    defaults={_KV_HEADS: None, "head_dim": None, "attention_bias": False, "mlp_bias": False},
)
MISTRAL = Family(
    name="mistral",
    architecture="MistralForCausalLM",
    window="all",
    defaults={_KV_HEADS: 8, "head_dim": None, "sliding_window": 4096},
)
QWEN2 = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    biases=("inputs",),
    window="layers",
    defaults={_KV_HEADS: 32, "head_dim": None, **_WINDOWED},
)
QWEN3 = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    biases=("none", "all"),
    qk_norms=("gains", True),
    window="layers",
    defaults={_KV_HEADS: 32, "head_dim": 128, "attention_bias": False, **_WINDOWED},
)
OLMO2 = Family(
    name="olmo2",
    architecture="Olmo2ForCausalLM",
    biases=("none", "all"),
    qk_norms=("whole",),
    norms="post",
    defaults={_KV_HEADS: None, "head_dim": None, "attention_bias": False, "rms_norm_eps": 1e-5},
)
DEEPSEEK = Family(
    name="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    defaults=dict.fromkeys(
        (
            "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "v_head_dim",
            "head_dim", _KV_HEADS, "rope_interleave", "attention_bias", "first_k_dense_replace", "n_routed_experts",
            "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts", "routed_scaling_factor",
            "norm_topk_prob", "n_group", "topk_group", "scoring_func", "topk_method", "moe_layer_freq",
            "num_nextn_predict_layers", "num_mtp_layers", "aux_loss_alpha", "seq_aux", "ep_size", "auto_map",
            "output_router_logits", "router_aux_loss_coef",
        )
    ),
)  # fmt: skip
ALL = (LLAMA, MISTRAL, QWEN2, QWEN3, OLMO2)
"""Those of grouped-query attention, the plainest first: a model goes out as the first that can say it."""
FAMILIES = {family.name: family for family in (*ALL, DEEPSEEK)}
COMMON = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "max_position_embeddings": None}
"""Keys of every family, and what their absence means where the family says nothing else."""

READ = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings",
)  # fmt: skip
IDLE = (
    "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "name_or_path", "use_cache",
    "initializer_range", "attention_dropout", "pretraining_tp", "bos_token_id", "eos_token_id", "pad_token_id",
    "unk_token_id", "sep_token_id", "tokenizer_class", "prefix", "return_dict", "output_hidden_states",
    "output_attentions", "use_return_dict", "id2label", "label2id", "num_labels", "problem_type",
    "task_specific_params", "finetuning_task", "chunk_size_feed_forward", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "torchscript", "use_bfloat16", "tf_legacy_loss",
)  # fmt: skip
"""Keys that change no logit of a model that does not learn, whatever they say. Dropout of attention is among them."""
OFF = ("is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "pruned_heads", "is_decoder",
       "tie_encoder_decoder", "use_bidirectional_attention", "quantization_config", "auto_map")  # fmt: skip
"""Keys that must say nothing: false, null or empty."""
LACKING = {
    "gpt2": "learned positions, LayerNorm, biases everywhere, a feed-forward block without a gate",
    "gpt_neox": "LayerNorm, both halves of a block at once, partial rotary positions",
    "gemma": "gains of 1 + w, embeddings multiplied by sqrt(width), GELU",
    "gemma2": "gains of 1 + w, soft caps of logits, norms on both sides of a half, GELU",
    "gemma3_text": "gains of 1 + w, norms on both sides of a half, frequencies and windows by layer, GELU",
    "phi": "LayerNorm, both halves of a block at once, partial rotary positions",
    "phi3": "fused maps of queries, keys, values and of gate and up, scaled rotary positions of its own",
    "mixtral": "experts chosen by a softmax, without a shared one",
    "qwen2_moe": "experts chosen by a softmax, a gated shared one",
    "qwen3_moe": "experts chosen by a softmax, without a shared one",
    "olmo": "LayerNorm without gains, clipped queries and keys",
    "olmo3": "windows by layer",
    "cohere": "LayerNorm, both halves of a block at once, scaled logits",
    "falcon": "LayerNorm, both halves of a block at once",
    "mamba": "state spaces, no attention",
    "bert": "attention in both directions, LayerNorm, learned positions",
}
"""Parts that other families have and our model has not."""


def default(family: Family, name: str) -> Any:
    """What it means that a ``config.json`` of this family has no such key."""
    return family.defaults.get(name, COMMON.get(name))
