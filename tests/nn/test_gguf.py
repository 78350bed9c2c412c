"""GGUF: read back by the package ``gguf``, and computed by llama.cpp's definitions, the logits are ours."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spectrain import nn
from spectrain.nn._attention.scaling import LinearScaling, Llama3Scaling, YarnScaling

gguf = pytest.importorskip("gguf", reason="files of GGUF are written by the package gguf")

LLAMA3 = Llama3Scaling(factor=4.0, low=1.0, high=4.0, length=16.0)
YARN = YarnScaling(factor=4.0, length=16.0, magnitude=1.3)
MODELS = {
    "llama": {"attention": {"qk_norm": False, "rotary_base": 500.0}},
    "llama with biases": {"attention": {"qk_norm": False, "bias": "all"}},
    "llama, tied": {"attention": {"qk_norm": False}, "tied": True, "embedding_norm": False},
    "llama3": {"attention": {"qk_norm": False, "rotary_base": 100.0, "rotary_scaling": LLAMA3}},
    "linear": {"attention": {"qk_norm": False, "rotary_scaling": LinearScaling(factor=3.0)}},
    "yarn": {"attention": {"qk_norm": False, "rotary_base": 100.0, "rotary_scaling": YARN}},
    "mistral": {"attention": {"qk_norm": False, "window": 48}},  # of 48 tokens: it sees them all
    "qwen2": {"attention": {"qk_norm": False, "bias": "inputs"}},
    "qwen3": {"attention": {"qk_norm": "gains", "head_dim": 10}},
    "qwen3, ours": {"attention": {"qk_norm": True, "rotary_scaling": YARN, "rotary_base": 100.0}},
    "olmo2": {"attention": {"qk_norm": "whole"}, "norms": "post"},
}


def make(*, norm_eps=1e-2, attention=None, dtype=torch.float32, **settings):
    model = nn.LanguageModel(
        vocabulary=50, width=32, depth=2, heads=4, kv_heads=2, hidden=48, context=48, generator=0, norm_eps=norm_eps,
        attention={"norm_eps": norm_eps, **(attention or {})}, **settings,
    )  # fmt: skip
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=noise), alpha=0.2)
    return model.to(dtype).eval()


def tokens(length=20):
    return torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(2))


class File:
    """What a file says: fields without the name of the architecture, tensors in float64."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        said = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = said["general.architecture"]
        self.said = {name.removeprefix(f"{self.architecture}."): value for name, value in said.items()}
        self.types = {each.name: each.tensor_type.name for each in reader.tensors}
        plain = {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in reader.tensors}
        self.tensors = {name: torch.tensor(np.array(w, dtype=np.float64)) for name, w in plain.items()}

    def map(self, name, x):
        y = x @ self.tensors[f"{name}.weight"].mT
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def norm(self, name, x):
        if f"{name}.weight" not in self.tensors:
            return x
        eps = self.said["attention.layer_norm_rms_epsilon"]
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * self.tensors[f"{name}.weight"]


def angles(file, positions):
    """llama.cpp's ``ggml_rope_ext``: frequencies, what YaRN mixes and multiplies."""
    said, dim = file.said, file.said["rope.dimension_count"]
    base, factor = said["rope.freq_base"], said.get("rope.scaling.factor", 1.0)
    plain = torch.tensor([base ** (-2 * i / dim) for i in range(dim // 2)], dtype=torch.float64)
    plain = plain / file.tensors.get("rope_freqs.weight", torch.ones(dim // 2, dtype=torch.float64))
    if said.get("rope.scaling.type") != "yarn":
        return positions[:, None] * plain / factor, 1.0
    length = said["rope.scaling.original_context_length"]
    low, high = (dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32.0, 1.0))
    low, high = max(0, math.floor(low)), min(dim - 1, math.ceil(high))
    ramp = torch.tensor([min(1.0, max(0.0, (i - low) / max(0.001, high - low))) for i in range(dim // 2)])
    frequencies = plain * (1 - ramp) + plain / factor * ramp
    grown = said["rope.scaling.attn_factor"] * (1 + 0.1 * math.log(factor))
    return positions[:, None] * frequencies, grown


def turn(x, angle, grown, *, neighbours):
    """Pairs of neighbours (a Llama's), or of halves (NeoX's: the others')."""
    cos, sin = angle.cos()[:, None] * grown, angle.sin()[:, None] * grown
    half = x.shape[-1] // 2
    first, second = (x[..., ::2], x[..., 1::2]) if neighbours else (x[..., :half], x[..., half:])
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.stack(turned, -1).flatten(-2) if neighbours else torch.cat(turned, -1)


def attend(file, i, x, *, neighbours):
    said = file.said
    heads, groups, size = (said[f"attention.{name}"] for name in ("head_count", "head_count_kv", "key_length"))
    query, key, value = (file.map(f"blk.{i}.attn_{name}", x) for name in "qkv")
    whole = file.architecture == "olmo2"
    if whole:
        query, key = file.norm(f"blk.{i}.attn_q_norm", query), file.norm(f"blk.{i}.attn_k_norm", key)
    query, key, value = (y.unflatten(-1, (-1, size)) for y in (query, key, value))
    if not whole:
        query, key = file.norm(f"blk.{i}.attn_q_norm", query), file.norm(f"blk.{i}.attn_k_norm", key)
    angle, grown = angles(file, torch.arange(len(x), dtype=torch.float64))
    query, key = (turn(y, angle, grown, neighbours=neighbours) for y in (query, key))
    key, value = (y.repeat_interleave(heads // groups, dim=1) for y in (key, value))
    logits = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(size)
    seen = torch.ones(len(x), len(x)).tril().bool()
    weights = logits.masked_fill(~seen, -math.inf).softmax(-1)
    return file.map(f"blk.{i}.attn_output", torch.einsum("hqk,khd->qhd", weights, value).flatten(1))


def forward(file, ids, *, neighbours=None):
    """The model that llama.cpp computes from a file: ``src/models/llama.cpp``, ``qwen2``, ``qwen3``, ``olmo2``."""
    neighbours = file.architecture == "llama" if neighbours is None else neighbours
    x = file.tensors["token_embd.weight"][ids]
    for i in range(file.said["block_count"]):
        found = attend(file, i, file.norm(f"blk.{i}.attn_norm", x), neighbours=neighbours)
        x = x + file.norm(f"blk.{i}.post_attention_norm", found)
        y = file.norm(f"blk.{i}.ffn_norm", x)
        gated = F.silu(file.map(f"blk.{i}.ffn_gate", y)) * file.map(f"blk.{i}.ffn_up", y)
        x = x + file.norm(f"blk.{i}.post_ffw_norm", file.map(f"blk.{i}.ffn_down", gated))
    return file.norm("output_norm", x) @ file.tensors.get("output.weight", file.tensors["token_embd.weight"]).mT


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_llama_cpp_computes_is_our_model(name, tmp_path):
    model = make(**MODELS[name])
    file = File(nn.models.to_gguf(model, tmp_path / "model.gguf"))
    ours = model(tokens()[None])[0].double()
    torch.testing.assert_close(forward(file, tokens()), ours, rtol=1e-5, atol=1e-5)


def change(key, value):
    def spoil(file):
        file.said[key] = value

    return spoil


def lose(name):
    return lambda file: file.tensors.pop(name)


def swap_keys_and_values(file):
    k, v = "blk.0.attn_k.weight", "blk.0.attn_v.weight"
    file.tensors[k], file.tensors[v] = file.tensors[v], file.tensors[k]


WRONG = {
    "halves turned": ("llama", None),
    "another base": ("llama", change("rope.freq_base", 10_000.0)),
    "another eps": ("llama", change("attention.layer_norm_rms_epsilon", 1e-5)),
    "keys for values": ("llama", swap_keys_and_values),
    "no biases": ("llama with biases", lose("blk.0.attn_q.bias")),
    "no factors of frequencies": ("llama3", lose("rope_freqs.weight")),
    "positions not scaled": ("linear", change("rope.scaling.factor", 1.0)),
    "a magnitude of its own lost": ("yarn", change("rope.scaling.attn_factor", 1.0)),
    "no norm of queries": ("qwen3", lose("blk.1.attn_q_norm.weight")),
    "another eps in norms of queries": ("qwen3, ours", change("attention.layer_norm_rms_epsilon", 1e-5)),
    "a norm behind lost": ("olmo2", lose("blk.1.post_ffw_norm.weight")),
}


@pytest.mark.parametrize("wrong", WRONG)
@torch.no_grad()
def test_the_comparison_rejects_wrong_files(wrong, tmp_path):
    name, spoil = WRONG[wrong]
    model = make(**MODELS[name])
    file = File(nn.models.to_gguf(model, tmp_path / "model.gguf"))
    if spoil is not None:
        spoil(file)
    found = forward(file, tokens(), neighbours=False if spoil is None else None)
    assert (found - model(tokens()[None])[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_run_without_the_order_of_rows_is_another_model(monkeypatch, tmp_path):
    from spectrain.nn._gguf import write

    model = make(**MODELS["llama"])
    monkeypatch.setattr(write, "interleaved", lambda w, heads: w)
    file = File(nn.models.to_gguf(model, tmp_path / "model.gguf"))
    assert (forward(file, tokens()) - model(tokens()[None])[0]).abs().max() > 1e-3


def test_the_file_says_what_the_model_is(tmp_path):
    model = make(**MODELS["qwen3"])
    file = File(nn.models.to_gguf(model, tmp_path / "model.gguf", context=40, name="a run"))
    wanted = {
        "general.architecture": "qwen3", "general.type": "model", "general.name": "a run", "general.file_type": 0,
        "vocab_size": 50, "context_length": 40, "embedding_length": 32, "block_count": 2, "feed_forward_length": 48,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 10,
        "attention.value_length": 10, "rope.dimension_count": 10, "rope.freq_base": 10_000.0,
        "attention.layer_norm_rms_epsilon": float(np.float32(1e-2)), "tokenizer.ggml.model": "no_vocab",
    }  # fmt: skip
    assert {name: value for name, value in file.said.items() if not name.startswith("GGUF.")} == wanted
    assert torch.equal(file.tensors["blk.1.attn_q.weight"].float(), model.blocks[1].attention.query.weight)
    assert torch.equal(file.tensors["blk.0.ffn_down.weight"].float(), model.blocks[0].feed_forward.down.weight)
    assert torch.equal(file.tensors["output.weight"].float(), model.head.weight)
    assert set(file.types.values()) == {"F32"}


@pytest.mark.parametrize(("dtype", "kind", "number"), [(torch.float16, "F16", 1), (torch.bfloat16, "BF16", 32)])
def test_matrices_keep_their_dtype_and_vectors_are_float32(dtype, kind, number, tmp_path):
    model = make(**MODELS["llama with biases"], dtype=dtype)
    file = File(nn.models.to_gguf(model, tmp_path / "model.gguf"))
    assert file.said["general.file_type"] == number
    assert {file.types[name] for name, w in file.tensors.items() if w.ndim == 2} == {kind}
    assert {file.types[name] for name, w in file.tensors.items() if w.ndim == 1} == {"F32"}
    assert torch.equal(file.tensors["blk.1.attn_v.weight"].to(dtype), model.blocks[1].attention.value.weight)
    assert torch.equal(file.tensors["blk.1.attn_v.bias"].to(dtype), model.blocks[1].attention.value.bias)


def test_adapters_go_out_merged(tmp_path):
    model = make(**MODELS["llama"])
    nn.models.adapt(model, rank=2, generator=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.05)
        file = File(nn.models.to_gguf(model, tmp_path / "model.gguf"))
        ours = model(tokens()[None])[0].double()
    torch.testing.assert_close(forward(file, tokens()), ours, rtol=1e-5, atol=1e-5)


REFUSED = {  # each was loaded by llama.cpp: it refuses the file, or computes logits that are off by 0.7 and more
    "a window of 5, below": {"attention": {"qk_norm": False, "window": 5}},
    "biases behind the heads in qwen3": {"attention": {"qk_norm": "gains", "bias": "all"}},
    "biases behind the heads in olmo2": {"attention": {"qk_norm": "whole", "bias": "all"}, "norms": "post"},
    "Llama 3's positions in qwen3": {"attention": {"qk_norm": True, "rotary_scaling": LLAMA3}},
    "YaRN with fast": {"attention": {"qk_norm": False, "rotary_scaling": YarnScaling(factor=4, length=16, fast=8)}},
    "a deepseek_v3 is not written": {
        "attention": {"latent": 16, "rotary_dim": 4, "norm_eps": 1e-6},
        "kv_heads": None,
        "norm_eps": 1e-6,
    },
    "write model.float": {"attention": {"qk_norm": False}, "dtype": torch.float64},
    "sinks": {"attention": {"qk_norm": False, "sinks": 2, "window": 8}},
}


@pytest.mark.parametrize(("words", "settings"), REFUSED.items(), ids=REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused_by_name(words, settings, tmp_path):
    dtype = settings.get("dtype", torch.float32)
    own = {name: value for name, value in settings.items() if name != "dtype"}
    sizes = {"vocabulary": 50, "width": 32, "depth": 1, "heads": 4, "kv_heads": 2, "context": 48}
    model = nn.LanguageModel(**sizes | own, generator=0).to(dtype)
    with pytest.raises(ValueError, match=words):
        nn.models.to_gguf(model, tmp_path / "model.gguf")
    assert not any(tmp_path.iterdir())


def test_the_longest_text_must_be_known(tmp_path):
    model = nn.LanguageModel(vocabulary=50, width=32, depth=1, heads=4, generator=0)
    with pytest.raises(ValueError, match="give context="):
        nn.models.to_gguf(model, tmp_path / "model.gguf")


def test_a_file_that_cannot_be_written_leaves_the_old_one(monkeypatch, tmp_path):
    model = make(**MODELS["llama"])
    (tmp_path / "model.gguf").write_text("mine")

    def full(self, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space left"):
        nn.models.to_gguf(model, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert (tmp_path / "model.gguf").read_text() == "mine"
