"""llama.cpp itself reads our files: the logits of every family and the tokens of every name are ours."""

import json
import random
import urllib.request

import pytest
import tokenizers
import torch

from spectrain import data, nn, train
from spectrain.nn._attention.scaling import LinearScaling, Llama3Scaling, YarnScaling

pytest.importorskip("gguf", reason="files of GGUF are written by the package gguf")
pytestmark = pytest.mark.full

YARN = YarnScaling(factor=4.0, length=16.0, magnitude=1.3)
MODELS = {
    "llama": {"attention": {"qk_norm": False, "bias": "all", "rotary_base": 500.0}},
    "llama, tied": {"attention": {"qk_norm": False}, "tied": True, "embedding_norm": False},
    "llama3": {
        "attention": {
            "qk_norm": False, "rotary_base": 100.0,
            "rotary_scaling": Llama3Scaling(factor=4.0, low=1.0, high=4.0, length=16.0),
        }
    },
    "linear": {"attention": {"qk_norm": False, "rotary_scaling": LinearScaling(factor=3.0)}},
    "yarn": {"attention": {"qk_norm": False, "rotary_base": 100.0, "rotary_scaling": YARN}},
    "qwen2": {"attention": {"qk_norm": False, "bias": "inputs"}},
    "qwen3": {"attention": {"qk_norm": "gains", "head_dim": 10, "rotary_scaling": YARN}},
    "olmo2": {"attention": {"qk_norm": "whole"}, "norms": "post"},
}  # fmt: skip
CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt-2": (None, False),
    "llama-bpe": (CUTS % "{1,3}", True),
    "dbrx": (CUTS % "{1,3}", False),
    "qwen2": (CUTS % "", False),
}


def serve(file):
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp itself comes with the package xllamacpp")
    asked = xllamacpp.CommonParams()
    asked.model.path, asked.n_ctx, asked.n_parallel, asked.warmup = str(file), 64, 1, False
    asked.cpuparams.n_threads = 1
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(asked)


def written(server, prompt, count=20):
    """The most likely of ASCII, one after the other, each with the logarithms of all chances."""
    never = [[i, False] for i in range(128, 257)]  # half a character would wait for its other half
    call = {"prompt": prompt, "n_predict": count, "temperature": 0.0, "logprobs": 257, "logit_bias": never}
    return server.handle_completions(call)["choices"][0]["logprobs"]["content"]


@torch.no_grad()
def assert_same(model, prompt, found):
    ids = [each["id"] for each in found]
    wanted = model(torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert ids == wanted[:, :128].argmax(-1).tolist()
    for row, each in zip(wanted, found, strict=True):
        there = torch.tensor([one["logprob"] for one in each["top_logprobs"]])
        torch.testing.assert_close(row[[one["id"] for one in each["top_logprobs"]]], there, rtol=1e-5, atol=1e-5)
        assert len(there) > 200


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_our_logits(name, tmp_path):
    settings = {"vocabulary": 257, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 64}
    model = nn.LanguageModel(**settings, **MODELS[name], generator=0).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=noise), alpha=0.2)
    vocabulary = data.train_tokenizer("bytes", []).gguf()
    server = serve(nn.models.to_gguf(model, tmp_path / "model.gguf", vocabulary=vocabulary))
    prompt = list(b"the norm of a matrix")
    assert_same(model, prompt, written(server, prompt))


def test_it_writes_the_text_of_a_run(spectrain, tiny, tmp_path):
    run, file = tmp_path / "run", tmp_path / "run.gguf"
    done = spectrain("train", *tiny, "--tokenizer", "bytes", "--block", 64, "--max-steps", 40, "--out-dir", run)
    assert done.returncode == 0, done.stderr
    assert spectrain("export", run, "--format", "gguf", "--out", file).returncode == 0
    ours = train.load_run(run)
    prompt = "line 3: the norm"  # it puts the beginning of a text in front itself
    ids = [ours.tokenizer.end_of_text, *ours.tokenizer.encode(prompt).tolist()]
    assert_same(ours.model, ids, written(serve(file), prompt))


def backend(cuts, *, whole):
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=whole))
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    made.pre_tokenizer = byte_level(add_prefix_space=False)
    if cuts is not None:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(cuts), "isolated")
        made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [split, byte_level(add_prefix_space=False, use_regex=False)]
        )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=byte_level.alphabet(), special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator(["they'll say 12 123 1234\n\n  naïve one два\r\n"] * 9, trainer)
    return made


def texts(count=300):
    """Letters, signs, spaces and lines' ends of the planes of Unicode that have been full since its version 15."""
    draw = random.Random(0)
    kinds = [(32, 127), (0xA0, 0x530), (0x3041, 0x3097), (0x4E00, 0x9FFF), (0x1F600, 0x1F64F)]
    some = ["\n", "\r\n", "  ", "\t", "'s", "'LL", "12345", "\u00a0", "\u3000", "\u017f"]
    for _ in range(count):
        yield "".join(draw.choice([chr(draw.randrange(*draw.choice(kinds))), draw.choice(some)]) for _ in range(12))


@pytest.mark.parametrize("name", PATTERNS)
def test_it_makes_our_tokens(name, tmp_path):
    cuts, whole = PATTERNS[name]
    backend(cuts, whole=whole).save(str(tmp_path / "tokenizer.json"))
    ours = data.load_tokenizer(tmp_path)
    assert ours.gguf()["tokenizer.ggml.pre"] == name
    model = nn.LanguageModel(vocabulary=ours.vocabulary_size, width=32, depth=1, heads=2, context=64, generator=0)
    server = serve(nn.models.to_gguf(model, tmp_path / "model.gguf", vocabulary=ours.gguf()))
    for text in texts():
        body = json.dumps({"content": text, "add_special": False}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["tokens"] == ours.encode(text).tolist(), ascii(text)
