"""Parameters of known modules that no type explains: one line each, with the source that says what it is.

A line names a package, a class (also as a base), a parameter relative to a module of that class, both as patterns,
what the parameter is, and where in the package that is to be read. The first line that fits decides.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._routing.fused import (
    Cut,
    as_wide_as_heads,
    by_head,
    by_head_if_first,
    equal,
    key_key_value,
    pieces_of,
    q_k_v,
    sizes_of,
    stacked,
    stated_experts,
)
from spectrain.optim._routing.role import Role, typed_role

# What AdamW moves without weight decay, by the word that the reason begins with.
POSITIONS, TOKENS, BIASES, RATES = "positions", "tokens", "biases", "rates"
TABLE = "embedding"  # looked up, and decays as embeddings do
HEAD = "head"
HIDDEN = Matrix()  # not an output head, although it stands last
IN_X_OUT = Matrix(transposed=True)


class Known(NamedTuple):
    """One line."""

    package: str
    module: str
    parameter: str
    what: str | Matrix | Cut
    source: str


KNOWN = (
    # transformers: what is stored in stacks
    Known("transformers", "Llama4TextExperts", "gate_up_proj", stacked(transposed=True, fused=2), "models/llama4: bmm"),
    Known("transformers", "Llama4TextExperts", "down_proj", stacked(transposed=True), "models/llama4: bmm"),
    Known("transformers", "LongcatFlashExperts", "gate_up_proj", stacked(fused=2), "models/longcat_flash: F.linear"),
    Known("transformers", "LongcatFlashExperts", "down_proj", stacked(), "models/longcat_flash: F.linear"),
    Known("transformers", "InklingSharedExperts", "*_proj", stacked(), "models/inkling: bmm with transpose(1, 2)"),
    Known("transformers", "*ParallelExperts", "weight", stacked(), "models/jetmoe: (experts, output, input)"),
    Known("transformers", "*Experts", "*_proj", stated_experts, "integrations/moe.py: use_experts_implementation"),
    Known("transformers", "*Experts", "*_bias", BIASES, "integrations/moe.py: has_bias"),
    Known("transformers", "*Router", "weight", HIDDEN, "models/mixtral: F.linear(hidden, weight)"),
    Known("transformers", "ZambaMambaMixer", "*_proj_weight", stacked(), "models/zamba: one matrix a Mamba head"),
    Known("transformers", "RecurrentGemmaRglru", "*_gate_weight", stacked(transposed=True), "recurrent_gemma: baddbmm"),
    # transformers: fused projections
    Known("transformers", "GPT2Attention", "c_attn.weight", pieces_of("split_size"), "models/gpt2: split(split_size)"),
    Known("transformers", "Decision*GPT2Attention", "c_attn.weight", pieces_of("split_size"), "decision_transformer"),
    Known("transformers", "ImageGPTAttention", "c_attn.weight", pieces_of("split_size"), "models/imagegpt"),
    Known("transformers", "Attention", "c_attn.weight", pieces_of("split_size"), "models/openai: split(split_size)"),
    Known("transformers", "GPTBigCodeAttention", "c_attn.weight", q_k_v, "models/gpt_bigcode: embed, kv, kv"),
    Known("transformers", "GPTNeoX*Attention", "query_key_value.weight", by_head, "models/gpt_neox: view(3 head_size)"),
    Known("transformers", "BloomAttention", "query_key_value.weight", by_head, "models/bloom: view(heads, 3, size)"),
    Known("transformers", "FalconAttention", "query_key_value.weight", by_head, "models/falcon: _split_heads"),
    Known("transformers", "PersimmonAttention", "query_key_value.weight", by_head, "models/persimmon: _split_heads"),
    Known("transformers", "MiniMaxLightningAttention", "qkv_proj.weight", by_head, "models/minimax: 3 head_dim a head"),
    Known("transformers", "DisentangledSelfAttention", "in_proj.weight", by_head, "models/deberta: chunk(3 heads)"),
    Known("transformers", "CodeGenAttention", "qkv_proj.weight", equal(12), "models/codegen: q, v, k in 4 blocks"),
    Known("transformers", "Phi3Attention", "qkv_proj.weight", q_k_v, "models/phi3: query_pos, key and value heads"),
    Known("transformers", "Phi4MultimodalAttention", "qkv_proj.weight", q_k_v, "models/phi4_multimodal: as Phi-3"),
    Known("transformers", "ModernBert*Attention", "Wqkv.weight", equal(3), "models/modernbert: view(3, -1, head_dim)"),
    Known("transformers", "MptAttention", "Wqkv.weight", equal(3), "models/mpt: chunk(3)"),
    Known("transformers", "BarkSelfAttention", "att_proj.weight", equal(3), "models/bark: split(embed_dim)"),
    Known("transformers", "Blip*Attention", "qkv.weight", equal(3), "models/blip: reshape(3, heads, -1)"),
    Known("transformers", "InstructBlip*Attention", "qkv.weight", equal(3), "models/instructblip: as BLIP-2"),
    Known("transformers", "Exaone4_5_VisionAttention", "qkv.weight", q_k_v, "models/exaone4_5: split(q, kv, kv)"),
    Known("transformers", "*VisionAttention", "qkv.weight", equal(3), "models/qwen2_vl: reshape(3, heads, -1)"),
    Known("transformers", "*VisionSdpaAttention", "qkv.weight", equal(3), "models/sam: reshape(3, heads, -1)"),
    Known("transformers", "TimesformerSelfAttention", "qkv.weight", equal(3), "models/timesformer: reshape(3, -1)"),
    Known("transformers", "HieraMaskUnitAttention", "qkv.weight", equal(3), "models/hiera: reshape(3, heads, -1)"),
    Known("transformers", "Sam2MultiScaleAttention", "qkv.weight", equal(3), "models/sam2: reshape(3, heads, -1)"),
    Known("transformers", "SegGptAttention", "qkv.weight", equal(3), "models/seggpt: reshape(3, heads, -1)"),
    Known("transformers", "VitDetAttention", "qkv.weight", equal(3), "models/vitdet: reshape(3, heads, -1)"),
    Known("transformers", "MgpstrAttention", "qkv.weight", equal(3), "models/mgp_str: reshape(3, heads, -1)"),
    Known("transformers", "Florence2Vision*Attention", "qkv.weight", equal(3), "models/florence2: reshape(3, -1)"),
    Known("transformers", "*MLP", "gate_up_proj.weight", equal(2), "models/phi3: chunk(2)"),
    Known("transformers", "ModernBert*MLP", "Wi.weight", equal(2), "models/modernbert: chunk(2)"),
    Known("transformers", "MambaMixer", "in_proj.weight", equal(2), "models/mamba: chunk(2)"),
    Known("transformers", "FalconMambaMixer", "in_proj.weight", equal(2), "models/falcon_mamba: chunk(2)"),
    Known("transformers", "JambaMambaMixer", "in_proj.weight", equal(2), "models/jamba: chunk(2)"),
    # transformers: maps that are plain parameters
    Known("transformers", "*RelativeLogits", "proj", IN_X_OUT, "models/inkling: relative_states @ proj"),
    Known("transformers", "*RelativePositionBias", "proj", IN_X_OUT, "models/inkling2: relative_states @ proj"),
    Known("transformers", "*ScaledL2Clip", "scale", RATES, "models/inkling2: hidden_states * scale"),
    Known("transformers", "*MessageAttentionResidual", "query", TOKENS, "models/inkling2_loop: learned queries"),
    Known("transformers", "XLNetRelativeAttention", "o", Matrix(flatten=True), "models/xlnet: einsum ibnd,hnd->ibh"),
    Known("transformers", "XLNetRelativeAttention", "?", Matrix(flatten=True, transposed=True), "xlnet: ibh,hnd->ibnd"),
    Known("transformers", "XLNetRelativeAttention", "*", BIASES, "models/xlnet: added to queries"),
    Known("transformers", "Funnel*Attention", "r_kernel", Matrix(flatten=True, transposed=True), "funnel: td,dnh->tnh"),
    Known("transformers", "Funnel*Attention", "*", BIASES, "models/funnel: added to queries"),
    Known("transformers", "*Projector", "mm_input_projection_weight", IN_X_OUT, "models/gemma3: outputs @ weight"),
    Known("transformers", "XCLIPModel", "prompts_visual_projection", IN_X_OUT, "models/x_clip: features @ weight"),
    Known("transformers", "OmDetTurbo*", "text_projection", IN_X_OUT, "models/omdet_turbo: output @ weight"),
    Known("transformers", "*HyperConnection", "fn", HIDDEN, "models/deepseek_v4: F.linear(flattened, fn)"),
    Known("transformers", "*HyperHead", "hc_fn", HIDDEN, "models/deepseek_v4: F.linear(flat, hc_fn)"),
    Known("transformers", "QuantLinear", "weight", HIDDEN, "models/ibert/quant_modules.py: F.linear"),
    Known("transformers", "QuantEmbedding", "weight", TABLE, "models/ibert/quant_modules.py: F.embedding"),
    # transformers: tables, tokens, rates
    Known("transformers", "*", "position_embedding*", POSITIONS, "models/vit: embeddings + position_embeddings"),
    Known("transformers", "*", "*positional_embedding*", POSITIONS, "models/llama4, models/sam"),
    Known("transformers", "*", "*mid_position_embeddings", POSITIONS, "models/yolos"),
    Known("transformers", "*", "pos_embed*", POSITIONS, "models/sam: hidden_states + pos_embed"),
    Known("transformers", "*", "time_embeddings", POSITIONS, "models/timesformer"),
    Known("transformers", "*", "temporal_positional_encoding", POSITIONS, "models/sam2_video"),
    Known("transformers", "*", "memory_temporal_positional_encoding", POSITIONS, "models/sam2_video"),
    Known("transformers", "MllamaPrecomputedPositionEmbedding", "embedding", POSITIONS, "models/mllama"),
    Known("transformers", "*PositionalEncoding", "position_enc", POSITIONS, "models/patchtst"),
    Known("transformers", "*", "level_embed", POSITIONS, "models/deformable_detr: added to each level"),
    Known("transformers", "*", "relative_position_bias_table", BIASES, "models/swin: rows added to logits"),
    Known("transformers", "CpmAntSegmentPositionEmbedding", "relative_attention_bias", BIASES, "models/cpmant"),
    Known("transformers", "*", "attention_biases", BIASES, "models/levit: rows added to logits"),
    Known("transformers", "*", "rel_pos_?", BIASES, "models/sam: add_decomposed_rel_pos"),
    Known("transformers", "*Attention", "*bias_?", BIASES, "models/wav2vec2_conformer: added to queries"),
    Known("transformers", "VitsAttention", "emb_rel_?", BIASES, "models/vits: relative positions"),
    Known("transformers", "*AxialPositionEmbeddings", "weights.*", POSITIONS, "models/reformer"),
    Known("transformers", "*Compressor", "position_bias", POSITIONS, "models/deepseek_v4: added to the gates"),
    Known("transformers", "*VectorQuantizer", "codevectors", TOKENS, "models/wav2vec2: the entries of a codebook"),
    Known("transformers", "*", "label_embeddings_concat", TABLE, "models/unispeech_sat: compared by cosine"),
    Known("transformers", "TvpModel", "text_prompt", TOKENS, "models/tvp: learned prompts"),
    Known("transformers", "Tvp*Prompter", "*", TOKENS, "models/tvp: learned pixels"),
    Known("transformers", "*", "query_tokens", TOKENS, "models/blip_2: learned queries"),
    Known("transformers", "*Projector", "query", TOKENS, "models/aria: learned queries"),
    Known("transformers", "*", "latent*", TOKENS, "models/perceiver: learned queries"),
    Known("transformers", "*", "*_token*", TOKENS, "models/dinov2_with_registers: register_tokens"),
    Known("transformers", "*Mixer", "A_log", RATES, "models/mamba: A_log._no_weight_decay"),
    Known("transformers", "*Mixer", "D", RATES, "models/zamba: D._no_weight_decay"),
    Known("transformers", "RecurrentGemmaRglru", "*_bias", BIASES, "models/recurrent_gemma: baddbmm"),
    Known("transformers", "*Mixer", "*_bias", BIASES, "models/zamba: dt_proj_bias"),
    # transformers: what stands last and is no head, and heads that have no usual name
    Known("transformers", "*Pooler", "dense.weight", HIDDEN, "models/bert: tanh(dense(first token))"),
    Known("transformers", "*", "pooler.weight", HIDDEN, "models/xlm_roberta_xl, models/flava"),
    Known("transformers", "Siglip*", "head.weight", HIDDEN, "models/siglip: into the common space, as CLIP"),
    Known("transformers", "Siglip*MLP", "fc2.weight", HIDDEN, "models/siglip: also in the pooling head"),
    Known("transformers", "*CLIP*", "*_projection.weight", HIDDEN, "models/clip: both into the common space"),
    Known("transformers", "*", "pre_classifier.weight", HIDDEN, "models/distilbert: before the classifier"),
    Known("transformers", "*PredictionHead", "dense.weight", HIDDEN, "models/modernbert: before the classifier"),
    Known("transformers", "*", "qa_outputs.weight", HEAD, "models/bert: start and end logits"),
    Known("transformers", "*ClassificationHead", "out_proj.weight", HEAD, "models/roberta: logits"),
    Known("transformers", "*Heads", "seq_relationship.weight", HEAD, "models/bert: BertPreTrainingHeads"),
    Known("transformers", "*NSPHead", "seq_relationship.weight", HEAD, "models/bert: BertOnlyNSPHead"),
    Known("transformers", "*", "logits_proj.weight", HEAD, "models/xlnet: logits"),
    Known("transformers", "*", "logits_dense.weight", HEAD, "models/dia: logits"),
    Known("transformers", "*", "dense_prediction.weight", HEAD, "models/electra: logits of a discriminator"),
    Known("transformers", "ViTMAEDecoder", "decoder_pred.weight", HEAD, "models/vit_mae: to pixels"),
    Known("transformers", "*SequenceSummary", "summary.weight", HEAD, "models/xlm: logits where it projects"),
    Known("transformers", "TextNet*", "fc.weight", HEAD, "models/textnet: logits"),
    Known("transformers", "CsmCodebooksHead", "weight", "output head", "models/csm: logits of each codebook"),
    # timm
    Known("timm", "*", "pos_embed*", POSITIONS, "vision_transformer.py: no_weight_decay"),
    Known("timm", "TNT", "*_pos", POSITIONS, "tnt.py: no_weight_decay"),
    Known("timm", "*", "position_embedding_table", POSITIONS, "gemma4_vit.py"),
    Known("timm", "*", "*_token", TOKENS, "vision_transformer.py: no_weight_decay"),
    Known("timm", "*", "relative_position_bias_table", BIASES, "swin_transformer.py: no_weight_decay"),
    Known("timm", "*", "attention_biases", BIASES, "levit.py: no_weight_decay"),
    Known("timm", "*", "rel_pos_?", BIASES, "mvitv2.py: no_weight_decay"),
    Known("timm", "PosEmbedRel", "*_rel", BIASES, "layers/bottleneck_attn.py: rel_logits_1d"),
    Known("timm", "EfficientViMBlock", "alpha", RATES, "efficientvim.py: gates of a residual"),
    Known("timm", "AttentionCl", "qkv.weight", by_head_if_first, "maxxvit.py: head_first"),
    Known("timm", "Attention2d", "qkv.weight", by_head_if_first, "maxxvit.py: head_first"),
    Known("timm", "WindowAttentionGlobal", "qkv.weight", as_wide_as_heads, "gcvit.py: 2 where the query is global"),
    Known("timm", "GluMlp", "fc1.weight", equal(2), "layers/mlp.py: chunk(2)"),
    Known("timm.models.efficientformer", "Attention", "qkv.weight", key_key_value, "split([key, key, val]) a head"),
    Known("timm.models.tiny_vit", "Attention", "qkv.weight", key_key_value, "split([key, key, val]) a head"),
    Known("timm", "BottleneckAttn", "qkv.weight", sizes_of("dim_out_qk", "dim_out_qk", "dim_out_v"), "layers: split"),
    Known("timm", "HaloAttn", "kv.weight", HIDDEN, "layers/halo_attn.py: head by head, of unlike sizes; one matrix"),
    Known("timm", "*Attention*", "qkv.weight", equal(3), "vision_transformer.py: reshape(3, heads, -1)"),
    Known("timm", "*Attn*", "qkv.weight", equal(3), "twins.py: reshape(3, heads, -1)"),
    Known("timm", "XCA", "qkv.weight", equal(3), "xcit.py: reshape(3, heads, -1)"),
    Known("timm", "*Attention*", "kv.weight", equal(2), "pvt_v2.py: reshape(2, heads, -1)"),
    Known("timm", "*Attn*", "kv.weight", equal(2), "twins.py: reshape(2, heads, -1)"),
    # torchvision
    Known("torchvision", "*", "pos_embedding", POSITIONS, "models/vision_transformer.py"),
    Known("torchvision", "*", "relative_position_bias_table", BIASES, "models/swin_transformer.py"),
    Known("torchvision", "*", "fc.weight", HEAD, "models/resnet.py: logits"),
    Known("torchvision", "ShiftedWindowAttention*", "qkv.weight", equal(3), "models/swin_transformer.py"),
    # diffusers
    Known("diffusers", "*", "pos_embed*", POSITIONS, "models/embeddings.py"),
    Known("diffusers", "*", "pos_emb_?", POSITIONS, "models/transformers/transformer_cosmos.py"),
    Known("diffusers", "*", "*scale_shift_table", TOKENS, "models/attention.py: added to the time embedding"),
    Known("diffusers", "*", "modulat*", TOKENS, "models/transformers: added to the time embedding"),
    Known("diffusers", "*", "latent*", TOKENS, "models/embeddings.py: IPAdapterPlusImageProjection"),
    Known("diffusers", "*", "*_tokens", TOKENS, "models/transformers/auraflow_transformer_2d.py"),
    Known("diffusers", "GEGLU", "proj.weight", equal(2), "models/activations.py: chunk(2)"),
    Known("diffusers", "SwiGLU", "proj.weight", equal(2), "models/activations.py: chunk(2)"),
    Known("diffusers", "*Model", "conv_out.weight", HEAD, "models/unets: to the channels of the sample"),
    Known("diffusers", "*coder*", "conv_out.weight", HEAD, "models/autoencoders/vae.py: moments, sample"),
    Known("diffusers", "*coder*", "conv_out.conv.weight", HEAD, "models/autoencoders: causal convolutions in 3-D"),
    Known("diffusers", "TransformerTemporalModel", "proj_out.weight", HIDDEN, "models/transformers: back to its input"),
    Known("diffusers", "*Transformer*Model", "proj_out.weight", HEAD, "models/transformers: to the patches"),
    Known("diffusers", "DiTTransformer2DModel", "proj_out_2.weight", HEAD, "models/transformers/dit_transformer_2d.py"),
    Known("diffusers", "AutoencoderKL*", "*quant_conv.weight", HIDDEN, "models/autoencoders: between latent channels"),
    # peft
    Known("peft", "Embedding", "lora_embedding_A.*", TABLE, "tuners/lora/layer.py: F.embedding(x, A.T)"),
    Known("peft", "Embedding", "lora_embedding_B.*", HIDDEN, "tuners/lora/layer.py: after_A @ B.T"),
)  # fmt: skip


def lines_of(kind: type[nn.Module]) -> tuple[Known, ...]:
    """The lines of a class and of what it derives from; wrappers as FSDP's and PEFT's derive from it."""
    return tuple(line for line in KNOWN if any(_is_of(c, line) for c in kind.__mro__))


def _is_of(kind: type, line: Known) -> bool:
    return f"{kind.__module__}.".startswith(f"{line.package}.") and fnmatchcase(kind.__name__, line.module)


def known_parameters(model: nn.Module) -> Iterator[tuple[str, str, nn.Module, Tensor, Known]]:
    """Yield path of the module, name in it, module, parameter and line, for each line that speaks of a parameter."""
    of_kind = {kind: lines_of(kind) for kind in {type(module) for module in model.modules()}}
    for prefix, module in model.named_modules():
        lines = of_kind[type(module)]
        for name, p in _near(module) if lines else ():
            line = next((line for line in lines if _fits(name, line.parameter)), None)
            if line is not None:
                yield prefix, name, module, p, line


def known_roles(model: nn.Module) -> dict[Tensor, Role | None]:
    """Return the roles that the lines give; None for a parameter whose module contradicts its line."""
    found: dict[Tensor, Role | None] = {}
    for _, name, module, p, line in known_parameters(model):
        if line.what != HEAD:
            found.setdefault(p, _role(line, name, module, p))
    return found


def _role(line: Known, name: str, module: nn.Module, p: Tensor) -> Role | None:
    typed = _typed(name, module, p)
    if typed is not None and typed.matrix is None:  # a vector, or a Linear of one row
        return typed
    if isinstance(line.what, str):
        return Role("adamw", None, TABLE if line.what == TABLE else f"{line.what} of {type(module).__name__}")
    base = Matrix() if typed is None or typed.matrix is None else typed.matrix
    matrix = line.what(module, p, base) if callable(line.what) else line.what if typed is None else base
    return None if matrix is None else Role("muon", matrix, f"{name} of {type(module).__name__}")


def _typed(name: str, module: nn.Module, p: Tensor) -> Role | None:
    """What the type of the module says that holds the parameter itself."""
    *path, own = name.split(".")
    return typed_role(module.get_submodule(".".join(path)), own, p.shape)


def _near(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module and of its children."""
    for name, p in module._parameters.items():
        if p is not None:
            yield name, p
    for child, held in module._modules.items():
        for name, p in held._parameters.items() if held is not None else ():
            if p is not None:
                yield f"{child}.{name}", p


def _fits(name: str, pattern: str) -> bool:
    """Whether a name fits part by part, so that a star is one part of it."""
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
