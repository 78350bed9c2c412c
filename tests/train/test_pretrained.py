"""``--init-from`` a folder of transformers', ``--tokenizer`` of somebody else: the same tokens, or a refusal."""

import json
import shutil
import warnings

import pytest
import safetensors.torch
import torch

from spectrain import data, train
from spectrain.train._run.prepare import prepare
from spectrain.train._run.progress import Progress
from spectrain.train.config import TrainConfig

from .test_run import assert_two_stops_change_nothing, weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own plans

LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
FAMILIES = {
    "Llama": {"rope_parameters": LLAMA3, "rms_norm_eps": 3e-3, "mlp_bias": True},
    "Mistral": {"sliding_window": 5, "tie_word_embeddings": True},
    "Qwen2": {"tie_word_embeddings": True, "rope_parameters": {**LLAMA3, "rope_type": "yarn"}},
    "Qwen3": {"head_dim": 10, "attention_bias": True},
    "Olmo2": {},
}
FAMILIES["Qwen2"]["rope_parameters"] = {
    name: value for name, value in FAMILIES["Qwen2"]["rope_parameters"].items() if "freq" not in name
}


def following(tiny, folder, **changes):
    free = {name: value for name, value in tiny.items() if name not in ("depth", "width", "heads", "vocabulary")}
    return {**free, "init_from": str(folder), "lr": 1e-3, **changes}


def tokens(length=40):
    return torch.randint(0, 280, (2, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def logits(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(tokens()).logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_run_begins_with_the_model_of_the_folder(family, tiny, pretrained_folder, tmp_path):
    folder = pretrained_folder(family, **FAMILIES[family])
    config = TrainConfig(**following(tiny, folder, out_dir=str(tmp_path)))
    with Progress(interval=10) as screen:
        session = prepare(config, screen)
    torch.testing.assert_close(session.model.eval()(tokens()), logits(folder), rtol=1e-5, atol=1e-5)
    assert session.config.family == family.lower()
    assert all(p.dtype == torch.float32 for p in session.model.parameters())
    matrices = session.job.matrices()
    assert all(p.ndim == 2 for p in matrices)
    there = transformers.AutoTokenizer.from_pretrained(folder)
    text = "the norm is cafe\u0301 <|end|>"
    plain = text.replace("<|end|>", "")
    assert session.job.text.tokenizer.encode(plain).tolist() == there(plain)["input_ids"]
    assert there.eos_token_id not in session.job.text.tokenizer.encode(text)  # what stands in a text is text
    assert session.job.text.tokenizer.end_of_text == there.eos_token_id


def test_it_goes_on_learning_and_resumes_with_the_same_bits(tiny, pretrained_folder, tmp_path):
    folder = pretrained_folder("Qwen2", **FAMILIES["Qwen2"])
    arguments = following(tiny, folder, max_steps=8)
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))
    assert_two_stops_change_nothing(arguments, tmp_path, whole)
    run = train.load_run(whole)
    assert run.sample("the norm", tokens=30).startswith("the norm")  # of more rows than there are tokens
    another = TrainConfig(**following(tiny, whole, out_dir=str(tmp_path / "next"), max_steps=1))
    with Progress(interval=10) as screen:
        (tmp_path / "next").mkdir()
        session = prepare(another, screen)
    assert all(torch.equal(p, weights(whole)[name]) for name, p in session.model.named_parameters())
    assert session.job.text.tokenizer.end_of_text == run.tokenizer.end_of_text
    assert (session.config.family, session.config.context) == ("qwen2", 64)


def spoil_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))


def spoil_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_a_tensor(folder):
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, file)


def lose_the_end(folder):
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((folder / name).read_text())
        kept = {key: value for key, value in said.items() if not key.startswith("eos_token")}
        (folder / name).write_text(json.dumps(kept))


def lose_all(folder):
    for file in folder.iterdir():
        file.unlink()


BAD = {
    "empty": (lose_all, "no finished run"),
    "without weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "cut weights": (cut_weights, "no whole safetensors file"),
    "a tensor missing": (lose_a_tensor, "has no tensor model.norm.weight"),
    "another shape": (spoil_shape, r"gate_proj.weight is \(48, 32\), and \(64, 32\) is meant"),
    "another family": (spoil_family, "model_type 'gpt_neox', which has what our model lacks: LayerNorm"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json, and its weights know no other"),
    "no end of text": (lose_the_end, r"Say which token does: put a file tokenizer_config.json .*, one of <\|begin\|>"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_a_folder_that_cannot_be_used_is_one_line_and_nothing_is_written(
    spoil, words, tiny, pretrained_folder, tmp_path
):
    folder = shutil.copytree(pretrained_folder("Llama"), tmp_path / "folder")
    spoil(folder)
    with pytest.raises(ValueError, match=words) as caught:
        train.train(TrainConfig(**following(tiny, folder, out_dir=str(tmp_path / "run"))))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 3}, r"--depth 3 differs from the 2 of --init-from"),
        ({"norm_eps": 1e-3}, r"--norm-eps 0.001 differs"),
        ({"rotary_base": 5.0}, r"--rotary-base 5.0 differs"),
        ({"tokenizer": "bytes"}, r"--tokenizer bytes differs from the .*tokenizer.json"),
        ({"block": 65}, r"--block 65 is beyond the 64 tokens"),
        ({"attention": "mla"}, r"--attention mla differs from the gqa"),
    ],
)
def test_another_shape_is_refused(changes, words, tiny, pretrained_folder, tmp_path):
    folder = pretrained_folder("Llama")
    with pytest.raises(ValueError, match=words):
        train.train(TrainConfig(**following(tiny, folder, **changes, out_dir=str(tmp_path / "run"))))
    assert not (tmp_path / "run").exists()


def test_the_block_is_the_context_where_that_is_shorter(tiny, pretrained_folder):
    from spectrain.train._jobs.beginning import inherit

    arguments = following(tiny, pretrained_folder("Llama"))
    del arguments["block"]
    assert inherit(TrainConfig(**arguments)).block == 64
    assert TrainConfig().block > 64


def test_a_tokenizer_of_somebody_else_makes_the_tokens(tiny, pretrained_folder, tmp_path):
    folder = pretrained_folder("Llama")
    arguments = {name: value for name, value in tiny.items() if name != "vocabulary"} | {"max_steps": 2}
    run = train.train(TrainConfig(**arguments, tokenizer=str(folder), out_dir=str(tmp_path / "run")))
    there = transformers.AutoTokenizer.from_pretrained(folder)
    found = train.load_run(run)
    assert found.config.vocabulary == found.tokenizer.vocabulary_size == len(there)
    assert found.tokenizer.encode("a matrix").tolist() == there("a matrix")["input_ids"]
    assert found.tokenizer.end_of_text == there.eos_token_id
    again = TrainConfig(**arguments | {"max_steps": None}, out_dir=str(run), resume="auto")
    train.train(again)  # by what the run keeps
    for flag, words in (("nowhere.json", "--tokenizer must be bpe, bytes"), (str(tmp_path), "--tokenizer must be")):
        with pytest.raises(ValueError, match=words):
            train.train(TrainConfig(**arguments, tokenizer=flag, out_dir=str(tmp_path / "other")))
    with pytest.raises(ValueError, match=r"--vocabulary 512 differs"):
        train.train(TrainConfig(**arguments, tokenizer=str(folder), vocabulary=512, out_dir=str(tmp_path / "other")))


def test_a_tokenizer_of_another_model_is_refused(tiny, pretrained_folder, tmp_path):
    folder = shutil.copytree(pretrained_folder("Llama"), tmp_path / "folder")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if "token_id" not in k}))
    text = " ".join(f"word{i} other{i * i} more{i * 7919}" for i in range(2000))
    large = data.train_tokenizer("bpe", [data.text.Document(name="a", text=text)], vocabulary_size=400)
    large.save(tmp_path / "tokenizer.json")
    arguments = following(tiny, folder, tokenizer=str(tmp_path / "tokenizer.json"), out_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"has 400 tokens, and the embedding of .* 320 rows"):
        train.train(TrainConfig(**arguments))


SETTINGS = {
    "--norm-eps must be": {"norm_eps": -1.0},
    "--rotary-base must be": {"rotary_base": 0.0},
    "--context must be at least --block": {"context": 8, "block": 16},
    "rotary scaling must be one of": {"rotary_scaling": ("ntk", "factor=2")},
    "--feed-forward-bias must be left out": {"feed_forward_bias": True, "moe_experts": 4},
    "--tokenizer must be": {"tokenizer": ""},
}


@pytest.mark.parametrize(("words", "changes"), SETTINGS.items(), ids=SETTINGS)
def test_settings_that_cannot_be_are_refused(words, changes):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**changes)


def test_a_model_from_nothing_takes_the_same_settings(tiny, tmp_path):
    scaling = ("llama3", "factor=4", "low=1", "high=4", "length=16")
    config = TrainConfig(
        **tiny | {"max_steps": 2}, qk_norm="whole", bias="all", feed_forward_bias=True, norms="post", norm_eps=1e-5,
        embedding_norm=False, rotary_base=500.0, rotary_scaling=scaling, out_dir=str(tmp_path),
    )  # fmt: skip
    model = train.load_run(train.train(config)).model
    attention = model.blocks[0].attention
    assert (attention.bias, attention.qk_norm, attention.rotary.base) == ("all", "whole", 500.0)
    assert attention.rotary.scaling.factor == 4
    assert model.blocks[0].norms == "post"
    assert model.norm.eps == 1e-5


def test_a_model_with_biases_is_not_compressed(tiny, tmp_path):
    config = TrainConfig(**tiny | {"max_steps": 1}, bias="inputs", out_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="biases"):
        train.compress(train.train(config), out_dir=tmp_path / "small", params=0.5)
