"""Every field of a configuration, both ways, in three dtypes; what cannot be said there or here is named."""

import json
import warnings

import pytest
import safetensors.torch
import torch

from spectrain import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")

SIZES = {"vocabulary": 61, "width": 32, "depth": 2, "heads": 4, "hidden": 48, "embedding_norm": False}
WITHIN = {torch.float64: 2e-6, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""transformers computes norms in float32, whatever the dtype."""
dtypes = pytest.mark.parametrize("dtype", WITHIN, ids=lambda dtype: str(dtype)[6:])
EXPERTS = {"experts": 6, "top_k": 2, "hidden": 20, "shared": 2, "activation": "sigmoid", "scale": 1.7}
OURS = {
    "Llama": {"kv_heads": 2, "norm_eps": 3e-3, "attention": {"qk_norm": False, "head_dim": 12, "rotary_base": 300.0}},
    "Llama, norm_eps of the dtype": {"attention": {"qk_norm": False}},
    "Qwen 3": {"kv_heads": 1, "tied": True, "norm_eps": 3e-3, "attention": {"norm_eps": 3e-3, "rotary_base": 300.0}},
    "Qwen 3, norm_eps of the dtype": {},
    "DeepSeek-V3": {
        "norm_eps": 3e-3,
        "attention": {"latent": 12, "query_rank": 10, "head_dim": 14, "rotary_dim": 6, "value_dim": 10},
        "feed_forward": lambda i: nn.MoE(32, **EXPERTS) if i else nn.models.SwiGLU(32, hidden=48),
    },
}


def tokens():
    return torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(2))


def gap(a, b):
    """Largest over the tokens; in narrow dtypes the median: rounding may send single tokens to another expert."""
    gaps = ((a.double() - b.double()).norm(dim=-1) / b.double().norm(dim=-1)).flatten()
    return (gaps.median() if b.dtype.itemsize < 4 else gaps.max()).item()


@torch.no_grad()
def small(changes, dtype):
    """A model whose stream is so small that what norms add is seen."""
    net = nn.LanguageModel(**{**SIZES, "generator": 0, **changes}).to(dtype)
    g = torch.Generator().manual_seed(1)
    for name, p in net.named_parameters():
        noise = torch.randn(p.shape, generator=g).to(dtype)
        if p.dim() > 1:
            p.copy_(noise * (1e-2 if name == "embedding.weight" else 0.02 if "output" in name else 0.3))
        else:
            p.add_(noise, alpha=0.1)
    return net


@dtypes
@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_ours_has_the_same_logits_there_and_back(name, dtype, tmp_path):
    net = small(OURS[name], dtype)
    nn.to_hugging_face(net, tmp_path)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, experts_implementation="eager")
    assert gap(there(tokens()).logits, net(tokens())) < WITHIN[dtype]
    back = nn.from_hugging_face(tmp_path)
    assert back.head.weight.dtype == dtype
    assert gap(back(tokens()), net(tokens())) < WITHIN[dtype]


def test_the_comparison_sees_the_rounding_of_bfloat16_in_place_of_float32s(tmp_path):
    net = small({}, torch.bfloat16)
    nn.to_hugging_face(net, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rms_norm_eps"] == 2.0**-23
    (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 2.0**-7}))
    assert gap(nn.from_hugging_face(tmp_path)(tokens()), net(tokens())) > 10 * WITHIN[torch.bfloat16]


COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 3e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
    "max_position_embeddings": 77,
}
LATENT = COMMON | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 6,
    "qk_nope_head_dim": 8,
    "v_head_dim": 10,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "n_shared_experts": 2,
    "n_group": 2,
    "topk_group": 2,
    "routed_scaling_factor": 1.3,
    "num_mtp_layers": 0,
}
THEIRS = {
    "Llama": lambda: transformers.LlamaConfig(**COMMON, num_key_value_heads=2, head_dim=10),
    "Llama, tied": lambda: transformers.LlamaConfig(**COMMON, tie_word_embeddings=True),
    "Qwen 3": lambda: transformers.Qwen3Config(**COMMON, num_key_value_heads=1, head_dim=10),
    "DeepSeek-V3": lambda: transformers.DeepseekV3Config(**LATENT, q_lora_rank=9, norm_topk_prob=False),
    "DeepSeek-V3, halves": lambda: transformers.DeepseekV3Config(**LATENT, q_lora_rank=None, rope_interleave=False),
}


@torch.no_grad()
def theirs(name, dtype):
    torch.manual_seed(0)
    there = transformers.AutoModelForCausalLM.from_config(THEIRS[name]()).to(torch.float64)
    for i, p in enumerate(there.parameters()):
        scale = 1e-2 if p.shape == (61, 32) and i == 0 else 0.2
        if p.dim() >= 2:
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)).double() * scale)
    for buffer_name, bias in there.named_buffers():
        if buffer_name.endswith("e_score_correction_bias"):
            bias.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    return there.to(dtype).eval()


@dtypes
@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_theirs_has_the_same_logits_here(name, dtype, tmp_path):
    theirs(name, dtype).save_pretrained(tmp_path)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, experts_implementation="eager")
    here = nn.from_hugging_face(tmp_path)
    assert here.context == 77
    assert gap(here(tokens()), there(tokens()).logits) < WITHIN[dtype]


@torch.no_grad()
def test_a_router_in_float32_inside_a_narrow_file_stays_so(tmp_path):
    folder = nn.to_hugging_face(small(OURS["DeepSeek-V3"], torch.bfloat16), tmp_path)
    there = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    gate = there.model.layers[1].mlp.gate.weight
    assert gate.dtype == torch.float32
    gate += 1e-5  # below the rounding of bfloat16
    there.save_pretrained(tmp_path / "again")
    here = nn.from_hugging_face(tmp_path / "again")
    assert torch.equal(here.blocks[1].feed_forward.router.weight, gate)
    assert here.head.weight.dtype == torch.bfloat16


def edited(folder, **tensors):
    file = folder / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(file) | tensors, file, metadata={"format": "pt"})


@torch.no_grad()
def test_a_tied_configuration_decides_over_a_second_head(tmp_path):
    net = small({"tied": True}, torch.float32)
    nn.to_hugging_face(net, tmp_path)
    edited(tmp_path, **{"lm_head.weight": net.embedding.weight.clone()})
    # Gains of one are multiplied there and left out here: rounded twice and once.
    torch.testing.assert_close(nn.from_hugging_face(tmp_path)(tokens()), net(tokens()), rtol=0, atol=1e-6)
    edited(tmp_path, **{"lm_head.weight": torch.ones(61, 32)})
    with pytest.warns(UserWarning, match=r"lm_head\.weight is there and is another table"):
        here = nn.from_hugging_face(tmp_path)
    assert here.head.weight is here.embedding.weight
    torch.testing.assert_close(here(tokens()), net(tokens()), rtol=0, atol=1e-6)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    alone = nn.from_hugging_face(tmp_path)
    assert torch.equal(alone.embedding.weight, net.embedding.weight)
    assert (alone.head.weight == 1).all()


def set_window(net):
    net.blocks[1].attention.window = 4


def set_eps(net):
    net.blocks[1].feed_forward_norm.eps = 0.1


def widen(net):
    net.blocks[1].feed_forward = nn.models.SwiGLU(32, hidden=40)


def narrow(net):
    net.blocks[1].attention.query.bfloat16()


REFUSED = {
    "norm_eps of attention": ({"norm_eps": 1e-5}, None),
    "norm_eps of attention other than that of the blocks, 0": ({"norm_eps": 0.0}, None),
    "norm_eps of latents": ({"attention": {"latent": 12, "norm_eps": 1e-5}}, None),
    "norm_eps of blocks": ({}, set_eps),
    "blocks that differ in their attention": ({}, set_window),
    "dense blocks of several widths": ({}, widen),
    "parameters of several dtypes": ({}, narrow),
}


@pytest.mark.parametrize(("words", "case"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_said_there_is_named(words, case, tmp_path):
    changes, change = case
    net = small(changes, torch.float32)
    if change is not None:
        change(net)
    with pytest.raises(ValueError, match=f"no counterpart for .*{words}"):
        nn.to_hugging_face(net, tmp_path / "out")


WRONG = {
    "rope_theta must be finite and positive, got -1": {"rope_parameters": {"rope_theta": -1}},
    "rope_theta must be finite and positive, got nan": {"rope_parameters": {"rope_theta": float("nan")}},
    "rope_theta must be finite and positive, got inf": {"rope_parameters": {}, "rope_theta": float("inf")},
    "rope_theta must be finite and positive, got '1e4'": {"rope_parameters": {"rope_theta": "1e4"}},
    "rms_norm_eps must be finite and 0 or more, got -1": {"rms_norm_eps": -1},
    "rms_norm_eps must be finite and 0 or more, got nan": {"rms_norm_eps": float("nan")},
    "hidden_size must be a whole number of at least 1, got 32.5": {"hidden_size": 32.5},
    "num_hidden_layers must be a whole number of at least 1, got 0": {"num_hidden_layers": 0},
    "num_attention_heads must be a whole number of at least 1, got True": {"num_attention_heads": True},
    "head_dim must be a whole number of at least 1, got None": {"head_dim": None},
    "head_dim must be a whole number of at least 1, got -8": {"head_dim": -8},
    "vocab_size must be a whole number of at least 1, got -3": {"vocab_size": -3},
    "max_position_embeddings must be a whole number of at least 1, got 0": {"max_position_embeddings": 0},
    "rope_theta must be finite and positive, got 1000": {"rope_parameters": {}, "rope_theta": 10**400},
    "rms_norm_eps must be finite and 0 or more, got 1000": {"rms_norm_eps": 10**400},
    "num_hidden_layers must be at most 10000, got 1000000000": {"num_hidden_layers": 10**9},
    "hidden_size must be at most 2147483647": {"hidden_size": 2**40},
    "tie_word_embeddings must be true or false, got 'no'": {"tie_word_embeddings": "no"},
    "attention_bias must be true or false, got 0": {"attention_bias": 0},
    "sliding windows": {"layer_types": ["full_attention", "sliding_attention"]},
    "partial_rotary_factor 0.5": {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
}
WRONG_EXPERTS = {
    "routed_scaling_factor must be finite and positive, got nan": {"routed_scaling_factor": float("nan")},
    "n_routed_experts must be a whole number of at least 1, got None": {"n_routed_experts": None},
    "scoring_func 'softmax'": {"scoring_func": "softmax"},
    "kv_lora_rank must be a whole number of at least 1, got -2": {"kv_lora_rank": -2},
}


@pytest.mark.parametrize(("words", "changes"), (WRONG | WRONG_EXPERTS).items(), ids=WRONG | WRONG_EXPERTS)
def test_a_number_that_cannot_be_is_named(words, changes, tmp_path):
    nn.to_hugging_face(small(OURS["DeepSeek-V3" if words in WRONG_EXPERTS else "Qwen 3"], torch.float32), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=words):
        nn.from_hugging_face(tmp_path)


TEXTS = {"list": "[1, 2]", "null": "null", "deep": "[" * 100_000, "cut": "{", "empty": ""}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_configuration_that_is_no_json_object_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json (is not JSON|is nested too deeply|must hold a JSON object)"):
        nn.from_hugging_face(tmp_path)
