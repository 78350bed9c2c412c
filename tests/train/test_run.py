"""Whole runs: what they write, that they learn, that stopping and resuming changes nothing."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import threading
import types
from unittest import mock

import pytest
import torch

from spectrain import optim, train
from spectrain.train._saved.load import load_run
from spectrain.train.config import TrainConfig

TIME = ("seconds", "per_second")


def rows(run):
    """Metrics without the fields that tell time."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(TIME)} for line in lines]


def weights(run):
    return load_run(run).model.state_dict()


def assert_same_run(one, other):
    assert rows(one) == rows(other)
    assert (one / "samples.txt").read_bytes() == (other / "samples.txt").read_bytes()
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def reference(trained_once):
    """An uninterrupted run for each optimizer."""
    return lambda tiny, **changes: trained_once({**tiny, **changes})


def test_a_run_folder_holds_everything(tiny, reference):
    run = reference(tiny)
    names = {p.name for p in run.iterdir()}
    assert names == {"config.json", "environment.json", "metrics.jsonl", "routing.json", "polynomials.json",
                     "tokenizer.json", "samples.txt", "checkpoints", "model.safetensors", "summary.json"}  # fmt: skip
    kinds = [row["kind"] for row in rows(run)]
    assert kinds.count("step") == 12
    assert [row["step"] for row in rows(run) if row["kind"] == "eval"] == [0, 4, 8, 12]
    assert {row["step"] for row in rows(run) if row["kind"] == "spectrum"} == {1, 6, 12}
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000008", "step-00000012"]
    routed = {row["name"]: row["algorithm"] for row in json.loads((run / "routing.json").read_text())}
    assert routed["embedding.weight"] == routed["head.weight"] == "adamw"
    assert routed["blocks.0.attention.query.weight"] == "muon"


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_it_learns(tiny, reference, optimizer):
    run = reference(tiny, optimizer=optimizer, max_steps=60, warmup=5)
    losses = [row["loss"] for row in rows(run) if row["kind"] == "eval"]
    assert losses[-1] < losses[0] - 1


def test_what_was_measured_stands_in_the_configuration(tiny, tmp_path):
    opened = {**tiny, "autocast": "auto", "muon_dtype": "auto", "threads": None, "max_steps": 2}
    run = train.train(TrainConfig(**opened, out_dir=str(tmp_path / "run")))
    recorded = json.loads((run / "config.json").read_text())
    assert recorded["autocast"] in ("bfloat16", "off")
    assert recorded["muon_dtype"] in ("bfloat16", "float32")
    assert recorded["threads"] == torch.get_num_threads()
    assert recorded["horizon"] == 2


def interrupted(arguments, out, step):
    """Run until a SIGTERM that arrives after ``step`` steps."""

    class Bomb(train.runs.Progress):
        def step(self, at, steps, text):
            if at == step:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(train.runs.StopRequest, match=f"SIGTERM after step {step}"):
        train.train(TrainConfig(**arguments, out_dir=str(out), resume="auto"), progress=Bomb())


def assert_two_stops_change_nothing(arguments, folder, whole):
    """One of them as if killed before the first checkpoint, one behind it."""
    for step in (2, 6):
        interrupted(arguments, folder / f"half{step}", step)
        if step == 2:
            shutil.rmtree(folder / "half2" / "checkpoints")
        again = TrainConfig(**arguments, out_dir=str(folder / f"half{step}"), resume="auto")
        assert_same_run(train.train(again), whole)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("steps", [(1,), (3,), (4,), (11,), (2, 5, 6)])
def test_stopping_and_resuming_changes_nothing(tiny, reference, tmp_path, optimizer, steps):
    arguments = {**tiny, "optimizer": optimizer}
    before = signal.getsignal(signal.SIGTERM)
    for step in steps:
        interrupted(arguments, tmp_path / "run", step)
    assert signal.getsignal(signal.SIGTERM) is before
    run = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "run"), resume="auto"))
    assert_same_run(run, reference(tiny, optimizer=optimizer))


def test_the_comparison_sees_another_run(tiny, reference):
    with pytest.raises(AssertionError):
        assert_same_run(reference(tiny), reference(tiny, seed=1))


def test_a_folder_with_a_run_is_not_overwritten(tiny, reference):
    run = reference(tiny)
    with pytest.raises(ValueError, match=r"already holds a run\. Give --resume auto"):
        train.train(TrainConfig(**tiny, out_dir=str(run)))


def test_resuming_on_other_text_is_refused(tiny, text_folder, tmp_path):
    own = tmp_path / "text"
    own.mkdir()
    for file in text_folder.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    arguments = {**tiny, "data": (str(own),)}
    interrupted(arguments, tmp_path / "run", 5)
    with open(own / "00.txt", "a", encoding="utf-8") as file:
        file.write("one more line\n")
    with pytest.raises(ValueError, match="data is not what this run was started on"):
        train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "run"), resume="auto"))


def test_resuming_with_another_tokenizer_is_refused(tiny, tmp_path, text_folder):
    interrupted(tiny, tmp_path / "run", 5)
    other = train.train(TrainConfig(**{**tiny, "vocabulary": 280, "max_steps": 1}, out_dir=str(tmp_path / "other")))
    (tmp_path / "run" / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="data is not what this run was started on"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto"))


def test_resuming_with_a_larger_vocabulary_or_none_is_refused(tiny, tmp_path):
    interrupted(tiny, tmp_path / "run", 5)
    own = tmp_path / "run" / "tokenizer.json"
    other = train.train(TrainConfig(**{**tiny, "vocabulary": 320, "max_steps": 1}, out_dir=str(tmp_path / "other")))
    own.write_bytes((other / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"vocabulary of \d+ tokens, the run's is at most 300"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto"))
    own.unlink()
    with pytest.raises(ValueError, match="is missing"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto"))


def test_a_stale_tokenizer_in_a_new_folder_is_not_used(tiny, tmp_path, reference):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokenizer.json").write_text("half a fi", encoding="utf-8")
    assert_same_run(train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run"))), reference(tiny))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_no_clipping_is_no_clipping(tiny, reference, optimizer):
    losses = [row["loss"] for row in rows(reference(tiny, optimizer=optimizer, clip=0.0)) if row["kind"] == "eval"]
    assert losses[-1] < losses[0]


EXPERTS = {"moe_experts": 8, "moe_top_k": 2}
SETTINGS = [
    EXPERTS,
    {**EXPERTS, "moe_balance": "quantile"},
    {"tied": True},
    {"tokenizer": "bytes"},
    {"autocast": "bfloat16", "muon_dtype": "bfloat16"},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_other_settings_resume_as_exactly(tiny, reference, tmp_path, changes):
    arguments = {**tiny, **changes}
    interrupted(arguments, tmp_path / "run", 6)
    run = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "run"), resume="auto"))
    assert_same_run(run, reference(tiny, **changes))


def test_weights_that_diverge_are_neither_saved_nor_called_a_result(tiny, tmp_path):
    arguments = {**tiny, "lr": 1e30, "max_steps": 1, "sample_tokens": 0}
    with pytest.raises(FloatingPointError, match="not finite"):
        train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_a_finished_run_without_checkpoints_is_left_alone(tiny, tmp_path):
    import shutil

    run = train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run")))
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="nothing to go on with"):
        train.train(TrainConfig(**tiny, out_dir=str(run), resume="auto"))
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_resumes(tiny, reference, tmp_path):
    interrupted(tiny, tmp_path / "run", 9)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    os.truncate(newest / "state.pt", 100)
    go_on = TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto")
    with pytest.raises(ValueError, match="step-00000009 is damaged"):
        train.train(go_on)
    newest.rename(tmp_path / "moved away")
    assert_same_run(train.train(go_on), reference(tiny))


def test_metrics_cut_short_are_refused(tiny, tmp_path):
    interrupted(tiny, tmp_path / "run", 9)
    os.truncate(tmp_path / "run" / "metrics.jsonl", 10)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 10 bytes"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto"))


def test_micro_batches_change_rounding_only(tiny, reference):
    whole, pieces = reference(tiny), reference(tiny, micro_batch_size=1)
    for a, b in zip(rows(whole), rows(pieces), strict=True):
        if a["kind"] == "step":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
            assert (b["tokens"], b["bytes"]) == (a["tokens"], a["bytes"])


def test_a_clock_fixes_the_steps_once(tiny, tmp_path, monkeypatch):
    from spectrain.train._run import loop as _loop
    from spectrain.train._run import session as _session

    ticks = itertools.count()  # a clock on which every step takes 50 ms, whatever the machine is busy with
    monkeypatch.setattr(_loop, "time", types.SimpleNamespace(perf_counter=lambda: 0.05 * next(ticks)))
    monkeypatch.setattr(_session.Session, "seconds", property(lambda session: 0.05 * session.counters.step))
    arguments = {**tiny, "max_steps": None, "max_minutes": 0.05, "eval_interval": 100, "save_interval": 10}
    run = tmp_path / "run"
    interrupted(arguments, run, 22)
    fixed = json.loads((run / "config.json").read_text())["horizon"]
    assert 22 < fixed <= 60  # 3 s of 50 ms, less for validations
    train.train(TrainConfig(**arguments, out_dir=str(run), resume="auto"))
    assert json.loads((run / "config.json").read_text())["horizon"] == fixed
    assert [row["step"] for row in rows(run) if row["kind"] == "step"] == list(range(1, fixed + 1))


def test_a_weight_that_has_no_spectrum_is_named(tiny, tmp_path, monkeypatch):
    from spectrain.train._run import session as _session

    def poisoned(session):  # behind the gradients, before the step
        if session.counters.step == 2:
            session.model.blocks[0].feed_forward.down.weight.data[0, 0] = torch.nan
        return clip(session)

    clip = _session.Session.clip_gradients
    monkeypatch.setattr(_session.Session, "clip_gradients", poisoned)
    named = r"spectra after step 3: weight blocks\.0\.feed_forward\.down\.weight is not finite at 1 of"
    with pytest.raises(FloatingPointError, match=named):
        train.train(TrainConfig(**{**tiny, "spectrum_interval": 3}, out_dir=str(tmp_path / "run")))


def test_a_bad_number_names_the_tensor_and_the_step(tiny, tmp_path, monkeypatch):
    from spectrain.train._run import session as _session

    def poisoned(session):
        if session.counters.step == 5:
            session.model.blocks[0].feed_forward.down.weight.data[0, 0] = torch.nan
        return clip(session)

    clip = _session.Session.clip_gradients
    monkeypatch.setattr(_session.Session, "clip_gradients", poisoned)
    monkeypatch.setattr(_session.Session, "set_learning_rate", lambda s: poisoned(s) and 0.0)
    with pytest.raises(FloatingPointError, match=r"step 6: weight blocks\.0\.feed_forward\.down\.weight is not finite"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run")))


def test_a_run_in_a_thread_leaves_signals_alone(tiny, tmp_path):
    one = TrainConfig(**{**tiny, "max_steps": 1}, out_dir=str(tmp_path / "run"))
    done = []
    thread = threading.Thread(target=lambda: done.append(train.train(one)))
    thread.start()
    thread.join()
    assert done


def test_a_configuration_reproduces_its_run(tiny, reference, tmp_path):
    from spectrain.train._run import recorded as _recorded

    again = _recorded.fresh_config(_recorded.read_config(reference(tiny) / "config.json", TrainConfig))
    run = train.train(dataclasses.replace(again, out_dir=str(tmp_path / "again")))
    assert_same_run(run, reference(tiny))


def test_global_determinism_setting_comes_back(tiny, tmp_path):
    before = torch.are_deterministic_algorithms_enabled()
    train.train(TrainConfig(**{**tiny, "max_steps": 1}, out_dir=str(tmp_path / "run")))
    assert torch.are_deterministic_algorithms_enabled() is before


def test_a_latent_with_log_n_trains_resumes_and_writes_the_same_text_in_every_form(tiny, tmp_path):
    flags = {**tiny, "attention": "mla", "log_n": "learned", "latent": 12, "query_rank": 10}
    whole = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "whole")))
    interrupted(flags, tmp_path / "half", 6)
    again = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "half"), resume="auto"))
    assert_same_run(again, whole)
    run = load_run(whole)
    assert run.model.blocks[0].attention.log_n_gain.ne(1).any()
    texts = {}
    for form in ("auto", "absorbed", "expanded", "full"):
        pieces = run.stream(["the norm", "of a"], tokens=20, temperature=0.0, form=form)
        texts[form] = tuple("".join(parts) for parts in zip(*pieces, strict=True))
    assert texts["auto"][0].startswith("the norm")
    assert len(set(texts.values())) == 1


def test_activations_are_recorded_where_spectra_are(tiny, reference):
    found = rows(reference(tiny))
    looked = [row for row in found if row["kind"] == "activation"]
    assert {row["step"] for row in looked} == {row["step"] for row in found if row["kind"] == "spectrum"}
    names = [row["name"] for row in looked if row["step"] == 12]
    assert names == ["blocks.0.attention.queries", "blocks.0.attention", "blocks.0.feed_forward", "norm"]
    last = next(row for row in looked if row["step"] == 12 and row["name"] == "norm")
    assert last["not_finite"] == 0
    assert 0.3 < last["rms"] < 3
    assert 1 <= last["effective_rank"] <= 32


def test_five_steps_are_the_same_five_everywhere():
    """In the command, the optimizer and the function: one design; --muon-lower makes it a schedule."""
    from spectrain import matfun
    from spectrain.train._run.job import AbstractJob
    from spectrain.train._run.optimizer import build_optimizer
    from spectrain.train._run.updates import muon_schedule

    config = TrainConfig(lr=0.01, muon_dtype="float32", autocast="off")
    job = mock.Mock(spec=AbstractJob, model=torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Linear(20, 16)))
    job.parametrisation.return_value, job.rates.return_value, job.rules.return_value = None, {}, {}
    job.heads.return_value = None
    group = build_optimizer(config, job).param_groups[0]
    ours = optim.Muon(torch.nn.Linear(12, 20), steps=5).param_groups[0]
    assert (group["steps"], group["schedule"]) == (ours["steps"], ours["schedule"]) == (5, None)
    assert muon_schedule(config) == matfun.planning.design(5, dtype=torch.float32)
    X = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    plain = matfun.msign(X, schedule=matfun.planning.design(5))
    assert float((matfun.msign(X, steps=5) - plain).norm()) < 0.02  # but for what is finished
    other = dataclasses.replace(config, muon_lower=2e-3)
    assert build_optimizer(other, job).param_groups[0]["steps"] is None
    assert muon_schedule(other).interval[0] == 2e-3
