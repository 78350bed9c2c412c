"""Configurations: what follows from the dial, what is refused, what comes back from a file."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from spectrain.train._jobs.model import build_model
from spectrain.train._run import recorded as _recorded
from spectrain.train._run import updates
from spectrain.train._run.config import DEFAULT_MINUTES, under
from spectrain.train.config import TrainConfig


def test_everything_follows_from_the_dial_and_every_choice_has_a_reason():
    full, why = TrainConfig(depth=6).derive()
    assert (full.width, full.heads, full.kv_heads, full.hidden) == (384, 6, 3, 1024)
    assert full.max_minutes == DEFAULT_MINUTES
    rates = {"lr", "embedding_lr", "head_lr", "final_lr"}
    assert {line.split(" = ")[0] for line in why} == {"width", "heads", "kv_heads", "hidden", "max_minutes", *rates}


def test_what_was_given_stays():
    rates = {"lr": 1.0, "embedding_lr": 2.0, "head_lr": 3.0, "final_lr": 0.0}
    full, why = TrainConfig(depth=6, width=96, heads=3, kv_heads=1, hidden=10, max_steps=3, **rates).derive()
    assert (full.width, full.heads, full.kv_heads, full.hidden) == (96, 3, 1, 10)
    assert {name: getattr(full, name) for name in rates} == rates
    assert full.max_minutes is None
    assert why == []


TORCH = {"optimizer": "torch-muon"}
ADAMW = {"optimizer": "adamw"}
REFUSED = [
    ({"depth": 0}, "--depth must be at least 1"),
    ({"batch_size": 6, "micro_batch_size": 4}, "--micro-batch-size must divide --batch-size 6, got 4; try 3"),
    ({"lr": 0.0}, "--lr must be positive"),
    ({"lr": float("inf")}, "--lr must be positive and finite"),
    ({"validation_fraction": 1.0}, "--validation-fraction must be between 0 and 1"),
    ({"beta2": 1.0}, "--beta2 must be at least 0 and below 1"),
    ({"resume": "sometimes"}, "--resume must be 'auto' or 'never'"),
    ({"max_steps": 0}, "--max-steps must be at least 1"),
    ({"threads": 10**6}, "--threads must be at most"),
    ({"seed": -1}, "--seed must be 0 or more"),
    (TORCH | {"scale": "spectral"}, "--scale must be one of match_rms_adamw, original with --optimizer torch-muon"),
    (TORCH | {"scale": "none"}, "--scale must be one of match_rms_adamw, original with --optimizer torch-muon"),
    (TORCH | {"muon_lower": 0.1}, "--muon-lower must be left out with --optimizer torch-muon: muon, normuon"),
    (TORCH | {"decay": "cautious"}, "--decay must be left out with --optimizer torch-muon: muon, normuon"),
    (ADAMW | {"momentum": 0.9}, "--momentum must be left out with --optimizer adamw: muon, normuon, muoneq, torch"),
    (ADAMW | {"muon_steps": 3}, "--muon-steps must be left out with --optimizer adamw: muon, normuon, muoneq, torch"),
    (ADAMW | {"muon_lower": 0.1}, "--muon-lower must be left out with --optimizer adamw: muon, normuon, muoneq know"),
    (ADAMW | {"decay": "spectral"}, "--decay must be left out with --optimizer adamw: muon, normuon, muoneq know it"),
    (ADAMW | {"scale": "original"}, "--scale must be left out with --optimizer adamw: muon, normuon, muoneq, torch-m"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[str(v) for v, _ in REFUSED])
def test_impossible_values_are_refused_by_flag_name(values, words):
    with pytest.raises(ValueError, match="^" + words.replace("(", r"\(")):
        TrainConfig(**values)


def test_under_another_optimizer_only_what_it_has_not_is_at_its_default():
    base = TrainConfig(muon_steps=3, decay="cautious", momentum=0.5, scale="original", beta1=0.8,
                       bound=2.5, bound_by="pre-decay")  # fmt: skip
    adamw, peer = under("adamw", base, lr=0.1), under("torch-muon", base)
    assert (adamw.muon_steps, adamw.decay, adamw.momentum, adamw.scale) == (5, "decoupled", 0.95, "match_rms_adamw")
    assert (adamw.optimizer, adamw.beta1, adamw.lr) == ("adamw", 0.8, 0.1)
    assert (adamw.bound, adamw.bound_by, peer.bound, peer.bound_by) == (None, "post-clip", None, "post-clip")
    assert (peer.muon_steps, peer.decay, peer.momentum, peer.scale) == (3, "decoupled", 0.5, "original")


def test_with_mup_the_scale_decides_rates_of_every_optimizer():
    TrainConfig(**ADAMW, scale="original", parametrisation="mup", base_width=64)


@pytest.mark.parametrize("scale", ["match_rms_adamw", "original"])
def test_what_torch_muon_is_asked_for_it_does(scale):
    config = TrainConfig(**TORCH, scale=scale, muon_steps=3, lr=0.1, weight_decay=0.0, momentum=0.9)
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    gains = torch.nn.Parameter(torch.ones(2))
    both = updates.torch_muon([{"params": [("w", ours)]}], [{"params": [("g", gains)]}], config)
    peer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.9, ns_steps=3, adjust_lr_fn=scale)
    for p in (ours, theirs):
        p.grad = start.flip(0)
    both.step()
    peer.step()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)


def test_a_model_that_is_trained_on_takes_one_rate():
    begun = dataclasses.replace(TrainConfig(lr=1e-3).derive()[0], init_from="run", embedding_lr=None, head_lr=None)
    full, _ = begun.derive()
    assert (full.embedding_lr, full.head_lr, full.vector_lr) == (None, None, None)  # 1: the rate of the matrices
    asked, _ = dataclasses.replace(begun, embedding_lr=8.0).derive()
    assert asked.embedding_lr == 8.0
    assert TrainConfig(lr=1e-3).derive()[0].embedding_lr == 32.0


SIZES = {
    "--attention s1: a value holds the 8 unrotated .* so --value-dim must be .*, got 1": {
        "attention": "s1", "head_dim": 12, "rotary_dim": 4, "value_dim": 1,
    },
    "--attention s2: the key is the value, so --value-dim must be --head-dim 12, got 1": {
        "attention": "s2", "head_dim": 12, "value_dim": 1,
    },
    "--attention gqa: --rotary-dim must be even, from 0 to --head-dim 16, got 3": {"rotary_dim": 3},
    "--attention gqa needs width divisible by heads, got --width 32, --heads 3; or give --head-dim": {"heads": 3},
}  # fmt: skip


@pytest.mark.parametrize(("words", "changes"), SIZES.items(), ids=SIZES)
def test_sizes_that_do_not_fit_are_named_as_they_are_typed(words, changes):
    full, _ = TrainConfig(**{"depth": 1, "width": 32, "heads": 2, "lr": 1e-3, "max_steps": 1} | changes).derive()
    with pytest.raises(ValueError, match=words):
        build_model(full, vocabulary=50)


def test_a_configuration_comes_back_from_its_file(tmp_path):
    one = TrainConfig(data=("a", "b"), lr=1e-3, max_minutes=2.0, tied=True, horizon=77)
    _recorded.write(one, tmp_path / "config.json")
    assert _recorded.read_config(tmp_path / "config.json", TrainConfig) == one


def changed(tmp_path, **values):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**dataclasses.asdict(TrainConfig()), **values}), encoding="utf-8")
    return path


BAD_FILES = [
    ({"detph": 3}, "unknown key 'detph'. Did you mean 'depth'"),
    ({"zzzzzz": 3}, "unknown key 'zzzzzz'. Known keys: attention"),
    ({"depth": "3"}, "depth must be int, got '3'"),
    ({"depth": True}, "depth must be int, got True"),
    ({"optimizer": "sgd"}, "optimizer must be"),
    ({"data": "text"}, "data must be"),
    ({"lr": "fast"}, "lr must be"),
]


@pytest.mark.parametrize(("values", "words"), BAD_FILES, ids=[str(v) for v, _ in BAD_FILES])
def test_a_wrong_file_is_refused_by_key(tmp_path, values, words):
    with pytest.raises(ValueError, match=words):
        _recorded.read_config(changed(tmp_path, **values), TrainConfig)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"Give a run's config\.json"):
        _recorded.read_config(tmp_path / "config.json", TrainConfig)


def test_integers_are_welcome_where_floats_are_wanted(tmp_path):
    assert _recorded.read_config(changed(tmp_path, lr=1), TrainConfig).lr == 1


def test_a_resumed_run_keeps_its_configuration():
    recorded = TrainConfig(depth=2, lr=1e-3, horizon=9, autocast="bfloat16")
    assert _recorded.resumed(recorded, TrainConfig(out_dir="here", resume="auto")).depth == 2
    with pytest.raises(ValueError, match="--depth 3 differs from the run's 2"):
        _recorded.resumed(recorded, TrainConfig(depth=3))


def test_fresh_folders_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        with _recorded.in_folder(TrainConfig()) as config:
            (Path(config.out_dir) / "config.json").write_text("{}")
            names.append(config.out_dir)
    assert len(set(names)) == 3
    with _recorded.in_folder(TrainConfig()) as one, _recorded.in_folder(TrainConfig()) as other:
        assert one.out_dir != other.out_dir
    assert not Path(one.out_dir).exists()  # nothing came into it


ATTENTION = {
    "gqa": {"kv_heads": 2, "latent": None},
    "mha": {"kv_heads": 4},
    "mqa": {"kv_heads": 1},
    "mla": {"kv_heads": 4, "latent": 128},
    "s1": {"kv_heads": 2, "head_dim": 96},
    "s2": {"kv_heads": 2, "head_dim": 128},
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_every_kind_of_attention_is_filled_in_and_built(kind):
    full, _ = TrainConfig(attention=kind, max_steps=1, window=7, log_n="learned").derive()
    assert {name: getattr(full, name) for name in ATTENTION[kind]} == ATTENTION[kind]
    block = build_model(full, vocabulary=300).blocks[0].attention
    assert block.shape.share == {"s1": "content", "s2": "all"}.get(kind, "none")
    assert (block.window, block.log_n, block.log_n_gain is None) == (7, 256, False)
    assert block.shape.cache_numbers <= (512 if kind == "mha" else 256)
    assert full.derive()[0] == full


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"attention": "mha", "heads": 4, "kv_heads": 2}, "--kv-heads must be left out with --attention mha"),
        ({"attention": "mqa", "kv_heads": 2}, "--kv-heads must be left out with --attention mqa"),
        ({"latent": 8}, "--latent must be left out without --attention mla"),
        ({"window": 0}, "--window"),
    ],
)
def test_attention_flags_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**flags)
