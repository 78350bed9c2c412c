"""``--lora``: adapters learn and nothing else does; files are peft's, out and in; resumes have the same bits."""

import importlib
import json
import shutil
import warnings

import pytest
import safetensors.torch
import torch

from spectrain import nn, report, train
from spectrain.cli import main
from spectrain.nn._hugging_face import peft as _peft
from spectrain.train._run.prepare import prepare
from spectrain.train._run.progress import Progress
from spectrain.train.config import TrainConfig

from .test_run import assert_two_stops_change_nothing, weights

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and peft warn of their own plans


@pytest.fixture
def base(pretrained_folder):
    """A folder of transformers'."""
    return pretrained_folder("Llama", rms_norm_eps=1e-5)


def following(tiny, folder, **changes):
    free = {name: value for name, value in tiny.items() if name not in ("depth", "width", "heads", "vocabulary")}
    return {**free, "init_from": str(folder), "lr": 3e-2, "lora": 3, "lora_alpha": 5.0, "max_steps": 8, **changes}


def trained(tiny, folder, out, **changes):
    return train.train(TrainConfig(**following(tiny, folder, **changes), out_dir=str(out)))


def tokens():
    return torch.randint(0, 280, (2, 40), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def logits(model):
    found = model.eval()(tokens())
    return getattr(found, "logits", found)


def theirs(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(folder)


def test_adapters_learn_and_nothing_else_does(tiny, base, tmp_path):
    run = trained(tiny, base, tmp_path / "run")
    found, before = weights(run), nn.from_hugging_face(base).state_dict()
    adapters = {name for name in found if ".lora_" in name}
    assert len(adapters) == 2 * 7 * len(nn.from_hugging_face(base).blocks)
    assert all(torch.equal(found[name], before[name]) for name in found if name not in adapters)
    assert all(found[name].any() for name in adapters)
    checkpoint = train.checkpoints(run)[-1]
    state = torch.load(checkpoint.path / "state.pt", weights_only=True)["optimizer"]
    assert len(state["state"]) == len(adapters)  # what is frozen has none
    evals = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"eval"' in line]
    assert evals[-1]["loss"] < evals[0]["loss"]
    config = json.loads((run / "config.json").read_text())
    assert (config["lora"], config["lora_alpha"], config["lora_from"]) == (3, 5.0, None)
    assert train.load_run(run).sample("the norm", tokens=4).startswith("the norm")


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_what_is_said_of_a_run_says_what_moves_and_what_stays(optimizer, tiny, base, tmp_path, capsys):
    run = trained(tiny, base, tmp_path / "run", max_steps=1, optimizer=optimizer)
    sizes = {name: w.numel() for name, w in weights(run).items()}
    moved = {name for name in sizes if ".lora_" in name}
    rows = json.loads((run / "routing.json").read_text())
    assert {row["name"]: row["algorithm"] for row in rows} == {
        name: optimizer if name in moved else "frozen" for name in sizes
    }
    learned, kept = (sum(n for name, n in sizes.items() if (name in moved) is move) for move in (True, False))
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("model: "))
    assert f"{learned:,} by {optimizer}" in line
    assert f"{kept:,} frozen" in line
    assert "embedding_lr" not in out  # no rate is chosen for what stays
    report.write([run], out=tmp_path / "report.html")
    assert f"and {len(sizes) - len(moved)} tensors with" in (tmp_path / "report.html").read_text()


def test_it_begins_as_the_base_and_resumes_with_the_same_bits(tiny, base, tmp_path):
    arguments = following(tiny, base, lora_layers=("query", "up"))
    (tmp_path / "first").mkdir()
    with Progress(interval=10) as screen:
        session = prepare(TrainConfig(**arguments, out_dir=str(tmp_path / "first")), screen)
    assert torch.equal(logits(session.model), logits(nn.from_hugging_face(base)))
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))
    assert_two_stops_change_nothing(arguments, tmp_path, whole)
    assert {name.split(".")[-3] for name in weights(whole) if "lora" in name} == {"query", "up"}


def test_the_export_is_the_base_with_its_adapters_merged(tiny, base, tmp_path):
    run = trained(tiny, base, tmp_path / "run")
    assert main(["export", str(run), "--out", str(tmp_path / "merged")]) == 0
    learned = logits(train.load_run(run).model)
    torch.testing.assert_close(logits(theirs(tmp_path / "merged")), learned, rtol=1e-5, atol=1e-5)
    assert (learned - logits(theirs(base))).abs().max() > 1e-2
    again = trained(tiny, tmp_path / "merged", tmp_path / "next", lora=None, lora_alpha=None, max_steps=1)
    assert (again / "model.safetensors").exists()
    assert not (again / "adapter").exists()


def test_peft_reads_what_a_run_leaves(tiny, base, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    run = trained(tiny, base, tmp_path / "run", lora_layers=("query", "value", "down"))
    found = peft.PeftModel.from_pretrained(theirs(base), run / "adapter")
    torch.testing.assert_close(logits(found), logits(train.load_run(run).model), rtol=1e-5, atol=1e-5)
    assert found.peft_config["default"].lora_alpha == 5
    assert found.peft_config["default"].base_model_name_or_path == str(base)


def test_a_run_begins_with_what_peft_wrote(tiny, base, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    settings = peft.LoraConfig(
        r=4, lora_alpha=7, target_modules=["q_proj", "o_proj", "gate_proj"], task_type="CAUSAL_LM"
    )
    there = peft.get_peft_model(theirs(base), settings)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in there.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2, generator=draw)
    there.save_pretrained(tmp_path / "adapter")
    (tmp_path / "run").mkdir()
    asked = following(tiny, base, lora=None, lora_alpha=None, lora_from=str(tmp_path / "adapter"))
    with Progress(interval=10) as screen:
        session = prepare(TrainConfig(**asked, out_dir=str(tmp_path / "run")), screen)
    torch.testing.assert_close(logits(session.model), logits(there), rtol=1e-5, atol=1e-5)
    assert (session.config.lora, session.config.lora_alpha) == (4, 7.0)
    assert sorted(session.config.lora_layers) == ["gate", "output", "query"]


def test_a_run_begins_with_the_adapters_of_another_and_resumes_with_the_same_bits(tiny, base, tmp_path):
    first = trained(tiny, base, tmp_path / "first")
    arguments = following(tiny, base, lora=None, lora_alpha=None, lora_from=str(first / "adapter"))
    (tmp_path / "begun").mkdir()
    with Progress(interval=10) as screen:
        session = prepare(TrainConfig(**arguments, out_dir=str(tmp_path / "begun")), screen)
    assert torch.equal(logits(session.model), logits(train.load_run(first).model))
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))
    assert_two_stops_change_nothing(arguments, tmp_path, whole)


def change_config(**values):
    def spoil(folder):
        found = json.loads((folder / _peft.CONFIG).read_text())
        (folder / _peft.CONFIG).write_text(json.dumps(found | values))

    return spoil


def rename(old, new):
    def spoil(folder):
        held = safetensors.torch.load_file(folder / _peft.WEIGHTS)
        changed = {name.replace(old, new): w for name, w in held.items() if new or old not in name}
        safetensors.torch.save_file(changed, folder / _peft.WEIGHTS)

    return spoil


LAYER = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
SPOILT = {
    "DoRA": (change_config(use_dora=True), "use_dora = True is more than plain LoRA"),
    "rsLoRA": (change_config(use_rslora=True), "use_rslora"),
    "biases": (change_config(bias="all"), "bias = 'all'"),
    "ranks of their own": (change_config(rank_pattern={"q_proj": 2}), "rank_pattern"),
    "another base": (
        change_config(init_lora_weights="pissa"),
        "init_lora_weights 'pissa' changes the weights of the base",
    ),
    "another method": (change_config(peft_type="IA3"), "peft_type must be LORA, got 'IA3'"),
    "no rank": (change_config(r=None), "r and lora_alpha must be numbers"),
    "a whole head": (rename(LAYER, "base_model.model.lm_head.weight"), "lm_head.weight is no adapter"),
    "half a layer": (rename(LAYER, ""), "feed_forward.up of block 1 has no lora_B"),
    "no weights": (lambda folder: (folder / _peft.WEIGHTS).unlink(), "adapter_model.safetensors cannot be read"),
    "no configuration": (lambda folder: (folder / _peft.CONFIG).unlink(), "has no adapter_config.json"),
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder of adapters for the base, made once."""
    made = []

    def folder(tiny, base):
        if not made:
            made.append(trained(tiny, base, tmp_path_factory.mktemp("lora") / "run", max_steps=1) / "adapter")
        return made[0]

    return folder


@pytest.mark.parametrize(("spoil", "said"), SPOILT.values(), ids=SPOILT)
def test_what_is_more_than_lora_or_does_not_fit_is_refused_before_anything_is_written(
    spoil, said, tiny, base, adapter, tmp_path
):
    shutil.copytree(adapter(tiny, base), tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    asked = following(tiny, base, lora=None, lora_alpha=None, lora_from=str(tmp_path / "adapter"))
    with pytest.raises(ValueError, match=said):
        train.train(TrainConfig(**asked, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


FLAGS = {
    "no base": ({"init_from": None}, "--lora must be given with --init-from"),
    "no rank": ({"lora": 0, "lora_alpha": None}, "--lora must be at least 1, got 0"),
    "a rank beyond the layers'": ({"lora": 4096}, r"--lora must be at most \d+, the rank of the largest layer"),
    "alpha alone": ({"lora": None}, "--lora-alpha must be left out without --lora"),
    "no alpha": ({"lora_alpha": -1.0}, "--lora-alpha must be positive"),
    "a bound": ({"bound": 2.0}, "--lora must be left out with --bound"),
    "the embedding's rate": ({"embedding_lr": 4.0}, "--embedding-lr must be left out with adapters"),
    "the head's rate": ({"head_lr": 4.0}, "--head-lr must be left out with adapters"),
    "the gains' rate": ({"vector_lr": 4.0}, "--vector-lr must be left out with adapters"),
    "heads": ({"muon_per_head": True}, "--lora must be left out with --muon-per-head"),
    "a layer of theirs": ({"lora_layers": ("q_proj",)}, "--lora-layers: no linear layer of a block is called 'q_proj'"),
}


@pytest.mark.parametrize(("changes", "said"), FLAGS.values(), ids=FLAGS)
def test_flags_that_do_not_go_together_are_refused_before_anything_is_written(changes, said, tiny, base, tmp_path):
    with pytest.raises(ValueError, match=said):
        train.train(TrainConfig(**following(tiny, base, **changes), out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "config.json").exists()


def test_other_ranks_and_layers_than_those_of_the_folder_are_refused_by_name(tiny, base, adapter, tmp_path):
    there = str(adapter(tiny, base))
    for changes, said in (
        ({"lora": 4, "lora_alpha": None}, "--lora 4 differs from the 3 of --lora-from"),
        ({"lora": None, "lora_layers": ("up",)}, "--lora-layers .* differs"),
    ):
        with pytest.raises(ValueError, match=said):
            config = TrainConfig(**following(tiny, base, lora_from=there, **changes), out_dir=str(tmp_path / "run"))
            train.train(config)


def test_a_run_with_adapters_is_no_base_and_is_not_compressed(tiny, base, tmp_path):
    run = trained(tiny, base, tmp_path / "run", max_steps=1)
    with pytest.raises(ValueError, match=r"has adapters\. What spectrain export writes"):
        trained(tiny, run, tmp_path / "next")
    with pytest.raises(ValueError, match="has adapters beside its layers"):
        train.compress(run, out_dir=tmp_path / "small", params=0.5)
