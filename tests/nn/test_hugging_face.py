"""Equal logits on both sides: our models in transformers, theirs here, and ours there and back."""

import json
import warnings

import pytest
import torch

from spectrain import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what transformers imports; what it does with our files is checked
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own plans

SIZES = {"vocabulary": 61, "width": 32, "depth": 2, "heads": 4, "hidden": 48}
OURS = {
    "Llama": ("LlamaForCausalLM", {"kv_heads": 2, "attention": {"qk_norm": False}}),
    "Llama, wide heads, another base": (
        "LlamaForCausalLM",
        {"attention": {"qk_norm": False, "head_dim": 12, "rotary_base": 500.0}},
    ),
    "Qwen 3 (our default)": ("Qwen3ForCausalLM", {"kv_heads": 2}),
    "Qwen 3, tied": ("Qwen3ForCausalLM", {"kv_heads": 1, "tied": True}),
    "Llama, tied, embeddings as they are": (
        "LlamaForCausalLM",
        {"tied": True, "embedding_norm": False, "attention": {"qk_norm": False}},
    ),
    "DeepSeek-V3": ("DeepseekV3ForCausalLM", {"attention": {"latent": 12, "query_rank": 10}}),
    "DeepSeek-V3, no query rank": (
        "DeepseekV3ForCausalLM",
        {"attention": {"latent": 12, "head_dim": 14, "rotary_dim": 6, "value_dim": 10}},
    ),
}
EXPERTS = {"experts": 6, "top_k": 2, "hidden": 20, "shared": 2, "activation": "sigmoid", "renormalise": True}
OURS |= {
    "DeepSeek-V3, experts": (
        "DeepseekV3ForCausalLM",
        {"attention": {"latent": 12}, "feed_forward": lambda i: nn.MoE(32, **EXPERTS)},
    ),
    "DeepSeek-V3, experts after a dense block": (
        "DeepseekV3ForCausalLM",
        {
            "attention": {"latent": 12},
            "feed_forward": lambda i: (
                nn.MoE(32, **EXPERTS | {"renormalise": False, "scale": 1.7}) if i else nn.models.SwiGLU(32, hidden=48)
            ),
        },
    ),
}
both = pytest.mark.parametrize(("theirs", "changes"), OURS.values(), ids=OURS)


def perturbed(changes):
    net = nn.LanguageModel(**{**SIZES, "generator": 0, **changes})
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=g), alpha=0.1)
        for layer in net.modules():
            if isinstance(layer, nn.MoE):
                layer.bias += 0.3 * torch.randn(layer.bias.shape, generator=g)
    return net


def tokens(length=9):
    return torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(2))


@both
@torch.no_grad()
def test_our_model_has_the_same_logits_in_transformers_and_back(theirs, changes, tmp_path):
    net, x = perturbed(changes), tokens()
    there = transformers.AutoModelForCausalLM.from_pretrained(nn.to_hugging_face(net, tmp_path, context=64))
    assert type(there).__name__ == theirs
    torch.testing.assert_close(there(x).logits, net(x), rtol=2e-5, atol=2e-5)
    back = nn.from_hugging_face(tmp_path)
    assert back.context == 64
    torch.testing.assert_close(back(x), net(x), rtol=2e-5, atol=2e-5)
    caches = back.empty_caches()
    steps = torch.cat([back(part, caches=caches) for part in x.split(1, dim=1)], dim=1)
    torch.testing.assert_close(steps, there(x).logits, rtol=2e-5, atol=2e-5)


EXPERTS_THERE = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 2,
}


def their_models():
    common = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    heads = {"qk_rope_head_dim": 6, "qk_nope_head_dim": 8, "v_head_dim": 10, "num_key_value_heads": 4}
    latent = heads | {"kv_lora_rank": 12, "first_k_dense_replace": 2}
    return {
        "Llama": transformers.LlamaConfig(**common, num_key_value_heads=2, rms_norm_eps=1e-5),
        "Llama, tied": transformers.LlamaConfig(**common, tie_word_embeddings=True),
        "Qwen 3": transformers.Qwen3Config(**common, num_key_value_heads=2, head_dim=10),
        "DeepSeek-V3": transformers.DeepseekV3Config(**common, **latent, q_lora_rank=10),
        "DeepSeek-V3, experts": transformers.DeepseekV3Config(
            **common, **(latent | {"first_k_dense_replace": 1}), **EXPERTS_THERE, q_lora_rank=10
        ),
        "DeepSeek-V3, halves": transformers.DeepseekV3Config(
            **common, **latent, q_lora_rank=None, rope_interleave=False
        ),
    }


@pytest.mark.parametrize("name", their_models())
@torch.no_grad()
def test_their_model_has_the_same_logits_here(name, tmp_path):
    torch.manual_seed(0)
    there = transformers.AutoModelForCausalLM.from_config(their_models()[name]).eval()
    for i, p in enumerate(there.parameters()):
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)), alpha=0.1)
    for name, bias in there.named_buffers():
        if name.endswith("e_score_correction_bias"):
            bias.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    there.save_pretrained(tmp_path, max_shard_size="10KB" if name == "Llama" else "5GB")
    here = nn.from_hugging_face(tmp_path)
    torch.testing.assert_close(here(tokens()), there(tokens()).logits, rtol=2e-5, atol=2e-5)


@torch.no_grad()
def test_the_comparison_of_logits_sees_rotary_rows_in_the_wrong_order(tmp_path):
    net = perturbed(OURS["DeepSeek-V3"][1])
    nn.to_hugging_face(net, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_interleave": False}))
    assert (nn.from_hugging_face(tmp_path)(tokens()) - net(tokens())).abs().max() > 1e-3


@torch.no_grad()
def test_their_generation_is_ours(tmp_path):
    net, x = perturbed({"attention": {"latent": 12}}), tokens(4)
    there = transformers.AutoModelForCausalLM.from_pretrained(nn.to_hugging_face(net, tmp_path, context=64))
    theirs = there.generate(x, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(x), pad_token_id=0)
    assert torch.equal(nn.generate(net, x, tokens=8, temperature=0.0), theirs)


NO_COUNTERPART = {
    "sinks": {"attention": {"window": 4, "sinks": 2}},
    "log_n": {"attention": {"log_n": 8}},
    "share='all'": {"attention": {"share": "all", "head_dim": 8}},
    "partial rotary": {"attention": {"rotary_dim": 4}},
    "query_rank without a latent": {"attention": {"query_rank": 4}},
    "output_rank": {"attention": {"output_rank": 4}},
    "latent_norm=False": {"attention": {"latent": 8, "latent_norm": False}},
    "feed-forward block other": {"feed_forward": lambda i: Linear()},
    "experts without a latent": {"feed_forward": lambda i: nn.MoE(32, **EXPERTS)},
    "experts without a shared one": {
        "attention": {"latent": 8},
        "feed_forward": lambda i: nn.MoE(32, **EXPERTS | {"shared": 0}),
    },
    "a router that is no top-k of sigmoids": {
        "attention": {"latent": 8},
        "feed_forward": lambda i: nn.MoE(32, **EXPERTS | {"activation": "softmax"}),
    },
}


class Linear(torch.nn.Linear):
    def __init__(self):
        super().__init__(32, 32)

    def initialise(self, *, generator):
        pass


@pytest.mark.parametrize(("words", "changes"), NO_COUNTERPART.items(), ids=NO_COUNTERPART)
def test_what_has_no_counterpart_is_named(words, changes, tmp_path):
    with pytest.raises(ValueError, match=f"no counterpart for .*{words}"):
        nn.to_hugging_face(perturbed(changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


CONFIGS = {
    "model_type 'gpt2'": {"model_type": "gpt2"},
    "has no tensor .*_proj.bias": {"attention_bias": True},
    "rope_type 'longrope', which has a list": {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
    "hidden_act 'gelu'": {"hidden_act": "gelu"},
    "does not fit": {"intermediate_size": 49},
}


@pytest.mark.parametrize(("words", "changes"), CONFIGS.items(), ids=CONFIGS)
def test_a_configuration_that_cannot_be_read_is_named(words, changes, tmp_path):
    nn.to_hugging_face(perturbed({}), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=words):
        nn.from_hugging_face(tmp_path)


def test_experts_and_missing_files_are_named(tmp_path):
    nn.to_hugging_face(perturbed({"attention": {"latent": 8}}), tmp_path / "mla")
    config = json.loads((tmp_path / "mla/config.json").read_text())
    for change, words in (({"topk_group": 1, "n_group": 2}, "from some groups only"), (EXPERTS_THERE, "has no tensor")):
        asked = config | {"first_k_dense_replace": 1, **EXPERTS_THERE, **change}
        (tmp_path / "mla/config.json").write_text(json.dumps(asked))
        with pytest.raises(ValueError, match=words):
            nn.from_hugging_face(tmp_path / "mla")
    folder = nn.to_hugging_face(perturbed({}), tmp_path / "qwen")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        nn.from_hugging_face(folder)
