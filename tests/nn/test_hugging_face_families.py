"""Families of transformers both ways: equal logits, every key and tensor honoured or refused, none silently another."""

import dataclasses
import json
import math
import subprocess
import sys
import warnings

import pytest
import safetensors.torch
import torch

from spectrain import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own plans

WITHIN = 1e-5
SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 3e-3, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
BETWEEN = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", **BETWEEN}
LLAMA3 = {"rope_type": "llama3", **BETWEEN, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ODD = {**YARN, "beta_fast": 1.0, "beta_slow": 0.5, "mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
THEIRS = {
    "Llama": ("Llama", {"rms_norm_eps": 1e-5, "tie_word_embeddings": True}),
    "Llama, llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "Llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    "Llama, YaRN": ("Llama", {"rope_parameters": YARN}),
    "Llama, YaRN of other numbers": ("Llama", {"rope_parameters": ODD}),
    "Llama, biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "Mistral": ("Mistral", {"sliding_window": 4}),
    "Mistral without a window": ("Mistral", {"sliding_window": None}),
    "Qwen 2": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen 2, window": ("Qwen2", WINDOW),
    "Qwen 3": ("Qwen3", {"head_dim": 10}),
    "Qwen 3, biases, window": ("Qwen3", {"head_dim": 10, "attention_bias": True, **WINDOW}),
    "OLMo 2": ("Olmo2", {}),
    "OLMo 2, biases, YaRN": ("Olmo2", {"attention_bias": True, "rope_parameters": YARN}),
}


def tokens(length=24):
    return torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def theirs(name, folder, **changes):
    """A model of transformers with weights that all matter, in ``folder``."""
    family, settings = THEIRS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | settings | changes)
    there = transformers.AutoModelForCausalLM.from_config(config).eval()
    for i, p in enumerate(there.parameters()):
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)), alpha=0.2)
    there.save_pretrained(folder)
    return there


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("name", THEIRS)
@torch.no_grad()
def test_logits_are_equal_here_and_in_the_same_family_again(name, tmp_path):
    there = theirs(name, tmp_path)
    here = nn.from_hugging_face(tmp_path)
    torch.testing.assert_close(here(tokens()), there(tokens()).logits, rtol=WITHIN, atol=WITHIN)
    caches = here.empty_caches()
    steps = torch.cat([here(part, caches=caches) for part in tokens().split(5, dim=1)], dim=1)
    torch.testing.assert_close(steps, here(tokens()), rtol=WITHIN, atol=WITHIN)
    again = nn.to_hugging_face(here, tmp_path / "again", family=there.config.model_type)
    back = transformers.AutoModelForCausalLM.from_pretrained(again)
    assert type(back) is type(there)
    torch.testing.assert_close(back(tokens()).logits, there(tokens()).logits, rtol=WITHIN, atol=WITHIN)


@torch.no_grad()
def test_a_file_in_parts_is_the_same_model(tmp_path):
    there = theirs("Qwen 2", tmp_path)
    there.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").exists()
    assert torch.equal(nn.from_hugging_face(tmp_path / "parts")(tokens()), nn.from_hugging_face(tmp_path)(tokens()))


@torch.no_grad()
def test_an_older_file_that_holds_frequencies_is_read_where_they_are_those_of_the_configuration(tmp_path):
    there = theirs("Llama", tmp_path)
    file = tmp_path / "model.safetensors"
    held = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": there.model.rotary_emb.inv_freq + 0 for i in range(2)}
    safetensors.torch.save_file(safetensors.torch.load_file(file) | held, file)
    torch.testing.assert_close(
        nn.from_hugging_face(tmp_path)(tokens()), there(tokens()).logits, rtol=WITHIN, atol=WITHIN
    )
    edit(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    with pytest.raises(ValueError, match="other frequencies than"):
        nn.from_hugging_face(tmp_path)


OTHER = {
    "another eps": ("Llama, llama3", {"rms_norm_eps": 1e-6}),
    "frequencies as they are": ("Llama, llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "another base": ("Llama, llama3", {"rope_parameters": {**LLAMA3, "rope_theta": 200.0}}),
    "another factor": ("Llama, llama3", {"rope_parameters": {**LLAMA3, "factor": 5.0}}),
    "another low": ("Llama, llama3", {"rope_parameters": {**LLAMA3, "low_freq_factor": 1.5}}),
    "another length": ("Llama, llama3", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 20}}),
    "no magnitude": ("Llama, YaRN", {"rope_parameters": {**YARN, "attention_factor": 1.0}}),
    "rounded ends": ("Llama, YaRN of other numbers", {"rope_parameters": {**ODD, "truncate": True}}),
    "another beta": ("Llama, YaRN of other numbers", {"rope_parameters": {**ODD, "beta_fast": 2.0}}),
    "no window": ("Mistral", {"sliding_window": None}),
    "a window one wider": ("Mistral", {"sliding_window": 5}),
    "a window that is not used": ("Qwen 2, window", {"use_sliding_window": False, "layer_types": None}),
}


@pytest.mark.parametrize(("name", "changes"), OTHER.values(), ids=OTHER)
@torch.no_grad()
def test_the_comparison_sees_a_key_that_is_not_honoured(name, changes, tmp_path):
    there = theirs(name, tmp_path)
    edit(tmp_path, **changes)
    assert (nn.from_hugging_face(tmp_path)(tokens()) - there(tokens()).logits).abs().max() > 100 * WITHIN


@pytest.mark.parametrize(("name", "words"), [
    ("q_norm.weight", "has no tensor model.layers.0.self_attn.q_norm.weight"),
    ("k_proj.bias", "k_proj.bias has no counterpart"),
    ("embed_tokens.weight", r"embed_tokens.weight is \(61, 33\), and \(61, 32\) is meant"),
])  # fmt: skip
def test_each_tensor_has_a_place_and_each_place_a_tensor(name, words, tmp_path):
    theirs("Qwen 3", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    full = next((n for n in tensors if n.endswith(name)), f"model.layers.1.self_attn.{name}")
    change = {"q_norm.weight": None, "k_proj.bias": torch.ones(20), "embed_tokens.weight": torch.ones(61, 33)}[name]
    tensors = {n: w for n, w in tensors.items() if n != full} | ({} if change is None else {full: change})
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ValueError, match=words):
        nn.from_hugging_face(tmp_path)


REFUSED = {
    "soft caps": ({"attn_logit_softcapping": 30.0}, "the key attn_logit_softcapping"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "code of its own": ({"auto_map": {"AutoModel": "m.M"}}, "auto_map"),
    "both directions": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    "windows that alternate": ({**WINDOW, "layer_types": ["full_attention", "sliding_attention"]}, "some blocks only"),
    "dynamic": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic', which turns"),
    "an unknown word of rope": ({"rope_parameters": {**YARN, "mrope_section": [1]}}, "mrope_section is not known"),
    "two bases": ({"rope_theta": 7.0}, "rope_theta is 7.0 and 10000.0"),
    "two ropes": ({"rope_scaling": YARN}, "say different things"),
    "llama3 without its length": (
        {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}, "max_position_embeddings": None},
        "original_max_position_embeddings must be finite and positive, got None",
    ),
    "llama3 upside down": (
        {"rope_parameters": {**LLAMA3, "low_freq_factor": 4.0}}, "low must be below high, got 4.0 and 4.0",
    ),
    "a family that is not here": ({"model_type": "gemma"}, "model_type 'gemma', which has what our model lacks: gains"),
    "no family": ({"model_type": ["llama"]}, r"model_type \['llama'\]; what can be read"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_named(changes, words, tmp_path):
    theirs("Qwen 3", tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=words):
        nn.from_hugging_face(tmp_path)


def test_a_key_that_is_left_out_means_what_it_means_in_transformers(tmp_path):
    there = theirs("Mistral", tmp_path, num_key_value_heads=4, sliding_window=4096)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("sliding_window", "tie_word_embeddings", "head_dim"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    here = nn.from_hugging_face(tmp_path)
    assert here.blocks[0].attention.window == transformers.MistralConfig().sliding_window
    torch.testing.assert_close(here(tokens()), there(tokens()).logits, rtol=WITHIN, atol=WITHIN)
    del config["num_key_value_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))  # eight, there as here
    with pytest.raises(ValueError, match="heads divisible by kv_heads"):
        nn.from_hugging_face(tmp_path)


def test_the_defaults_are_those_of_transformers():
    from spectrain.nn._hugging_face.families import ALL, COMMON, default

    for family in ALL:
        fresh = transformers.AutoConfig.for_model(family.name)
        filled = ("head_dim", "layer_types", "num_key_value_heads", "sliding_window", "max_position_embeddings")
        for name in {*COMMON, *family.defaults} - {*filled}:
            assert default(family, name) == getattr(fresh, name), (family.name, name)
    heads = {family.name: default(family, "num_key_value_heads") for family in ALL}
    for name, count in heads.items():
        config = type(transformers.AutoConfig.for_model(name))
        assert count in ({f.name: f.default for f in dataclasses.fields(config)}["num_key_value_heads"],), name


def test_files_that_are_cut_doubled_or_not_plain_are_named(tmp_path):
    theirs("Llama", tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        nn.from_hugging_face(tmp_path)
    tensors = safetensors.torch.load(whole)
    narrow = {**tensors, "model.norm.weight": tensors["model.norm.weight"].to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(narrow, file)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is of dtype F8_E4M3"):
        nn.from_hugging_face(tmp_path)
    file.write_bytes(whole)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.safetensors"}}')
    with pytest.raises(ValueError, match="take away the one that is not meant"):
        nn.from_hugging_face(tmp_path)
    for folder, words in ((tmp_path / "empty", "no such folder"), (tmp_path.parent, "no config.json")):
        with pytest.raises(ValueError, match=words):
            nn.from_hugging_face(folder)


UNSAID = {
    "mistral": {"bias": "inputs"},
    "qwen2": {"qk_norm": False},
    "qwen3": {"qk_norm": "whole"},
    "olmo2": {"qk_norm": "gains"},
    "llama": {"window": 4, "qk_norm": False},
    "deepseek_v3": {},
}


@pytest.mark.parametrize("family", UNSAID)
def test_a_setting_that_a_family_has_not_is_named(family, tmp_path):
    net = nn.LanguageModel(vocabulary=9, width=16, depth=1, heads=2, attention=UNSAID[family], generator=0)
    with pytest.raises(ValueError, match=f"no counterpart for .*{family}"):
        nn.to_hugging_face(net, tmp_path / "out", family=family)
    with pytest.raises(ValueError, match="family must be one of"):
        nn.to_hugging_face(net, tmp_path / "out", family="gpt2")
    assert not (tmp_path / "out").exists()


def test_scalings_are_their_formulas_by_hand():
    base, pairs = 100.0, 8
    plain = torch.tensor([base ** (-i / pairs) for i in range(pairs)], dtype=torch.float64)
    linear = nn.attention.read_scaling(["linear", "factor=4"])
    torch.testing.assert_close(linear.change(plain, base=base), plain / 4)
    llama = nn.attention.read_scaling(["llama3", "factor=4", "low=1", "high=4", "length=64"])
    for f, changed in zip(plain.tolist(), llama.change(plain, base=base).tolist(), strict=True):
        turns = 64 * f / (2 * math.pi)
        kept = 1 if turns > 4 else 0 if turns < 1 else (turns - 1) / 3
        assert changed == pytest.approx(kept * f + (1 - kept) * f / 4, rel=1e-14)
    words = ("yarn", "factor=4.0", "length=64.0", "fast=3.0", "slow=0.5", "magnitude=1.25", "whole=0.0")
    yarn = nn.attention.read_scaling(words)
    assert nn.attention.write_scaling(yarn) == words
    first, last = (pairs * math.log(64 / (2 * math.pi * turns)) / math.log(base) for turns in (3, 0.5))
    kept = [1 - min(1, max(0, (i - first) / (last - first))) for i in range(pairs)]
    wanted = [k * f + (1 - k) * f / 4 for k, f in zip(kept, plain.tolist(), strict=True)]
    assert yarn.change(plain, base=base).tolist() == pytest.approx(wanted, rel=1e-12)
    layer = nn.Attention(32, heads=2, rotary_scaling=yarn)
    assert layer.scale == pytest.approx(1.25**2 / 4)


@pytest.mark.parametrize("words", ["yarn", "linear factor=x", "linear factor=-1", "linear factor=2 factor=3",
                                   "ntk factor=2", "linear factor=2 low=1", "llama3 factor=2 low=4 high=1 length=8",
                                   "linear factor=nan"])  # fmt: skip
def test_a_scaling_that_cannot_be_is_refused(words):
    with pytest.raises(ValueError, match="rotary scaling"):
        nn.attention.read_scaling(words.split())


WRONG = {
    "bias beside a latent": ({"latent": 8, "bias": "all"}, "cannot be absorbed"),
    "a magnitude for some coordinates": (
        {"rotary_dim": 4, "rotary_scaling": nn.attention.YarnScaling(factor=2, length=8, magnitude=1.1)},
        "are not rotated",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_settings_that_do_not_go_together_are_refused(arguments, words):
    with pytest.raises(Exception, match=words):
        nn.Attention(16, heads=2, **arguments)


def test_biases_and_gains_are_not_lost_where_weights_are_taken():
    biased = nn.Attention(16, heads=2, bias="inputs", qk_norm=False)
    with pytest.raises(ValueError, match="biases"):
        nn.attention.to_latent(biased)
    with pytest.raises(ValueError, match="as one column"):
        biased.clip_arguments()
    with pytest.raises(ValueError, match="query_gains and key_gains"):
        nn.Attention(16, heads=2, qk_norm="gains").clip_arguments()


ONE_GRAPH = """
import torch
from spectrain import nn
torch.set_grad_enabled(False)
scaling = nn.attention.read_scaling(["yarn", "factor=4", "length=16", "magnitude=1.1"])
tokens = torch.arange(48).view(2, 24) % 61
for qk_norm in ("gains", "whole"):
    net = nn.LanguageModel(
        vocabulary=61, width=32, depth=2, heads=4, kv_heads=2, norms="post", generator=0,
        attention={"qk_norm": qk_norm, "bias": "all", "rotary_scaling": scaling, "window": 5},
        feed_forward=lambda i: nn.models.SwiGLU(32, hidden=48, bias=True),
    )
    net.head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens), net(tokens))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = net(tokens).float()
    torch.testing.assert_close(narrow, net(tokens), rtol=0.1, atol=0.1)
"""


def test_all_settings_together_are_one_graph():
    # A process of its own: the checks of annotations that tests put around functions break graphs.
    done = subprocess.run([sys.executable, "-W", "error", "-c", ONE_GRAPH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_norms_follow_is_drawn_and_learns():
    net = nn.LanguageModel(vocabulary=61, width=32, depth=2, heads=4, norms="post", generator=0, embedding_norm=False)
    net.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    net(tokens()).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.norm() < 1e3 for p in net.parameters())
    assert all(block.attention.output.weight.std() > 0.1 for block in net.blocks)
