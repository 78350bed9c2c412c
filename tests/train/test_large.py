"""Text that goes through shards trains to the same weights, and what does not belong to it is refused."""

import json

import pytest
import torch

from spectrain import data, train
from spectrain.train._jobs import large
from spectrain.train._jobs.pace import Pace
from spectrain.train.config import TrainConfig

QUICK = {"max_steps": 2, "spectrum_interval": 0, "eval_interval": 100}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setattr(large, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "text"


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE", 1)


def weights(run):
    return (run / "model.safetensors").read_bytes()


def summary(run):
    found = json.loads((run / "summary.json").read_text())
    timed = ("second", "share", "memory", "digest")
    return {name: value for name, value in found.items() if not any(word in name for word in timed)}


@pytest.mark.parametrize("options", [{}, {"packing": "documents", "tokenizer": "bytes"}], ids=["runs", "documents"])
def test_a_run_on_shards_is_the_run_on_memory(tiny, tmp_path, monkeypatch, cache, capsys, options):
    arguments = {**tiny, **QUICK, **options}
    ours = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "memory")))
    assert not cache.exists()
    monkeypatch.setattr(large, "LARGE", 1)
    theirs = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "shards")))
    assert "to shards in" in capsys.readouterr().out
    assert weights(ours) == weights(theirs)
    assert summary(ours) == summary(theirs)
    assert (ours / "samples.txt").read_bytes() == (theirs / "samples.txt").read_bytes()
    (folder,) = cache.iterdir()
    before = (folder / "train-0.npy").stat().st_mtime_ns
    again = large.large_text(TrainConfig(**{**arguments, "lr": 1e-3}))
    assert (folder / "train-0.npy").stat().st_mtime_ns == before, "prepared once for all runs"
    assert again.folder == folder
    assert capsys.readouterr().out == ""


def test_a_run_of_memory_goes_on_with_shards(tiny, tmp_path, monkeypatch):
    arguments = {**tiny, **QUICK, "max_steps": 4, "save_interval": 2}
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))

    class Stop(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "cut")), progress=Stop())
    monkeypatch.setattr(large, "LARGE", 1)
    again = train.train(TrainConfig(out_dir=str(tmp_path / "cut"), resume="auto"))
    assert weights(again) == weights(whole)
    data.train_tokenizer("bytes", []).save(tmp_path / "cut" / "tokenizer.json")
    with pytest.raises(ValueError, match="is another tokenizer than that of the shards in"):
        train.train(TrainConfig(out_dir=str(tmp_path / "cut"), resume="auto"))


@pytest.mark.usefixtures("everything_is_large")
def test_a_mixture_goes_through_shards(tiny, text_folder, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    for i in range(20):
        (tmp_path / "other" / f"{i}.txt").write_text(f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 3))
    mixed = {**tiny, "data": (str(text_folder), str(tmp_path / "other")), "data_weights": (3.0, 1.0), **QUICK}
    by_itself = large.large_text(TrainConfig(**mixed))
    groups = [[path] for path in mixed["data"]]
    prepared = data.shards.prepare(groups, tmp_path / "tokens", vocabulary=300)
    assert by_itself.fingerprint == prepared.fingerprint
    named = train.train(TrainConfig(**{**mixed, "data": (str(tmp_path / "tokens"),)}, out_dir=str(tmp_path / "named")))
    monkeypatch.setattr(large, "LARGE", 1 << 40)
    in_memory = train.train(TrainConfig(**mixed, out_dir=str(tmp_path / "memory")))
    assert weights(named) == weights(in_memory)
    assert summary(named) == summary(in_memory)


REFUSED = {
    "another vocabulary": ({"vocabulary": 301}, "was prepared with --vocabulary 300, and 301 is asked for"),
    "another tokenizer": ({"tokenizer": "bytes"}, "was prepared with --tokenizer bpe, and bytes is asked for"),
    "another fraction": ({"validation_fraction": 0.1}, "was prepared with --validation-fraction 0.05, and 0.1"),
    "weights of one": ({"data_weights": (1.0,)}, "holds one source, and there is nothing to mix"),
    "with others": ({"data": ("tokens", "tokens")}, "is prepared text, which is trained on alone"),
    "truncated": ({}, r"train-0\.npy is truncated"),
    "not finished": ({}, "not prepared to its end; give the same spectrain prepare again"),
    "weights of no sources": ({"data": ("text",), "data_weights": (1.0, 2.0)}, "one number for each of the 1 --data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shards_that_do_not_fit_are_refused_and_nothing_is_written(tiny, text_folder, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").symlink_to(text_folder)
    data.shards.prepare([[text_folder]], "tokens", vocabulary=300)
    if case == "truncated":
        (tmp_path / "tokens" / "train-0.npy").write_bytes(b"\x93NUMPY")
    if case == "not finished":
        (tmp_path / "tokens" / "spectrain-shards.json").rename(tmp_path / "tokens" / "spectrain-plan.npz")
    changes, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        train.train(TrainConfig(**{**tiny, "data": ("tokens",), **changes}, out_dir="runs/one"))
    assert not (tmp_path / "runs").exists()


def test_apart_without_weights_is_refused(tiny, text_folder, tmp_path):
    data.shards.prepare([[text_folder / "0*.txt"], [text_folder / "1*.txt"]], tmp_path / "tokens", vocabulary=300)
    with pytest.raises(ValueError, match="prepared with --apart from 2 sources; give --data-weights"):
        train.train(TrainConfig(**{**tiny, "data": (str(tmp_path / "tokens"),)}, out_dir=str(tmp_path / "run")))


def test_the_last_validation_is_bounded_and_says_so(tiny, tmp_path, capsys):
    runs = {
        most: train.train(TrainConfig(**tiny | QUICK, final_eval_tokens=most, out_dir=str(tmp_path / str(most))))
        for most in ("all", 10**9, 70)
    }
    said = capsys.readouterr().out
    found = {most: summary(run) for most, run in runs.items()}
    assert found["all"] == found[10**9]
    assert found["all"]["validation_tokens"] == found["all"]["held_out_tokens"] == found[70]["held_out_tokens"] > 200
    assert found[70]["validation_tokens"] == 64, "whole blocks of 16"
    assert found[70]["validation_loss"] != found["all"]["validation_loss"]
    assert said.count("the last validation reads 64 tokens, spread over the") == 1
    assert said.count("validation on all of 64 tokens spread over the") == 1
    assert said.count(" held-out bytes: loss") == 2


def test_the_score_of_the_last_validation_is_that_of_its_blocks(tiny, tmp_path):
    run = train.train(TrainConfig(**tiny | QUICK, final_eval_tokens=70, out_dir=str(tmp_path / "run")))
    made = train.load_run(run)
    documents = data.read_documents(list(tiny["data"]))
    tokens = made.tokenizer.encode_documents(data.split_documents(documents, fraction=0.05, seed=0)[1])
    blocks = -(-len(tokens) // 16)
    ring = [*tokens.tolist(), int(tokens[0])]
    logits, targets = [], []
    for number in (i * blocks // 4 for i in range(4)):
        row = ring[16 * number : 16 * number + 17]
        logits.append(made.model(torch.tensor([row[:-1]]))[0].detach())
        targets += row[1:]
    each = torch.cat(logits).double().log_softmax(-1)
    expected = -float(each[torch.arange(len(targets)), torch.tensor(targets)].mean())
    assert summary(run)["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert summary(run)["validation_bytes"] == int(made.tokenizer.byte_lengths[targets].sum())


@pytest.mark.parametrize("wrong", [0, -5, "some", "", "64"])
def test_an_amount_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="--final-eval-tokens must be a number from 1 on, or all"):
        TrainConfig(final_eval_tokens=wrong)


def test_a_run_from_before_is_judged_as_then(tmp_path):
    assert TrainConfig.added["final_eval_tokens"] == "all"


def test_long_work_says_how_far_it_is():
    clock, said = iter([0.0, 9.0, 10.0, 15.0, 30.0, 100.0, 111.0]), []
    pace = Pace("tokens", say=said.append, stages=True, clock=lambda: next(clock))
    for done in (0, 10, 20, 30, 60):
        pace("one thing", done, 100)
    pace("another", 0, None)
    pace("another", 7, None)
    assert said == [
        "  one thing",
        "  one thing: 20 of 100 tokens, about 40 s left",
        "  one thing: 60 of 100 tokens, about 20 s left",
        "  another",
        "  another: 7 tokens",
    ]


def test_two_that_prepare_the_same_text_take_turns(tmp_path, monkeypatch):
    from spectrain.train._run import claim

    tries = iter([claim.FolderInUse("x is in use by process 7, which writes. Wait."), None])
    held, asleep = large.claimed, []

    def claimed(folder):
        trouble = next(tries)
        if trouble:
            raise trouble
        return held(folder)

    monkeypatch.setattr(large, "claimed", claimed)
    monkeypatch.setattr(large.time, "sleep", asleep.append)
    with large._in_turn(tmp_path / "folder"):
        assert (tmp_path / "folder" / claim.LOCK).exists()
    assert asleep == [large._AGAIN]
