"""Where data enters a run: mixtures, packed documents, rows of files, what is measured, what is refused."""

import json
import re

import pytest
import torch

from spectrain import data, nn, train
from spectrain.train._jobs import text as _text
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig


@pytest.fixture
def two(tmp_path, text_folder):
    """A folder of text and JSON lines of another kind, as --data."""
    lines = [json.dumps({"text": f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 3)}) for i in range(60)]
    (tmp_path / "code.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(text_folder), str(tmp_path / "code.jsonl")


def rows(run, kind="step"):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def untimed(run):
    return [{k: v for k, v in row.items() if not k.endswith("second") and "seconds" not in k} for row in rows(run)]


@pytest.mark.parametrize("packing", ["none", "documents"])
def test_a_mixture_resumes_to_the_same_weights(tiny, two, tmp_path, packing):
    arguments = {**tiny, "data": two, "data_weights": (3.0, 1.0), "packing": packing}
    arguments |= {"max_steps": 6, "save_interval": 3}
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))

    class Stop(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "cut")), progress=Stop())
    again = train.train(TrainConfig(out_dir=str(tmp_path / "cut"), resume="auto"))
    assert untimed(again) == untimed(whole)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    summary = json.loads((whole / "summary.json").read_text())
    assert list(summary["epochs_by_source"]) == list(two)
    recorded = json.loads((whole / "config.json").read_text())
    assert recorded["data_weights"] == [3.0, 1.0]


def test_rows_come_in_the_proportions_asked_for(tiny, two, tmp_path):
    job = LanguageJob(
        TrainConfig(**{**tiny, "data": two, "data_weights": (3.0, 1.0)}), RunFolder(tmp_path), resuming=False
    )
    assert job.stream.counts(400) == [300, 100]
    assert any("mixture" in line and "0.75" in line for line in job.about_data())
    held_out = set(job.text.opening().splitlines())
    assert any(line.startswith("def ") for line in held_out), "every source is held out in part"
    assert any(line.endswith(".") for line in held_out)


def held_out_and_learned(config):
    text = _text.load(config, tokenizer_file=None)
    learned = "".join(text.tokenizer.decode(tokens) for tokens in text.sources)
    words = [set(re.findall(r"<\d\d\d>", part)) for part in (text.opening(), learned)]
    assert len(words[0] | words[1]) == 200
    return words[0] & words[1]


def test_what_one_source_learns_the_other_does_not_hold_out(tiny, tmp_path, monkeypatch):
    texts = []
    for name in "ab":  # the same texts in another order, so under other names
        order = range(200) if name == "a" else range(199, -1, -1)
        lines = "\n".join(json.dumps({"text": f"<{i:03d}>"}) for i in order)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        texts.append(str(tmp_path / f"{name}.jsonl"))
    config = TrainConfig(**{**tiny, "data": tuple(texts), "data_weights": (1.0, 1.0), "validation_fraction": 0.3})
    assert not held_out_and_learned(config)
    with pytest.raises(ValueError, match="every held-out document is training text of another"):
        _text._new(documents := data.read_documents(texts), documents)
    monkeypatch.setattr(_text, "_new", lambda train, held_out: held_out)
    assert held_out_and_learned(config), "without the rule there is an overlap to be found"


def packed_logits(model, stream):
    batch = stream.batch(0)
    return batch, model(batch.inputs, documents=batch.documents)


@pytest.mark.parametrize("log_n", [None, 16])
def test_packed_documents_get_the_logits_they_get_alone(tiny, two, tmp_path, log_n):
    """Positions begin again, no document sees another, and log n counts what is seen: all of it in one equality."""
    config = TrainConfig(**{**tiny, "data": (two[1],), "packing": "documents", "block": 64})
    job = LanguageJob(config, RunFolder(tmp_path), resuming=False)
    model = nn.LanguageModel(
        vocabulary=job.text.tokenizer.vocabulary_size, width=32, depth=2, heads=2, attention={"log_n": log_n},
        generator=torch.Generator().manual_seed(0),
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype), alpha=0.1)
        batch, together = packed_logits(model, job.stream)
        assert batch.documents.max() > 1
        ignored = model(batch.inputs)
        worst = 0.0
        for row in range(len(batch.inputs)):
            for number in range(1, int(batch.documents[row].max()) + 1):
                here = batch.documents[row] == number
                alone = model(batch.inputs[row, here][None])[0]
                torch.testing.assert_close(together[row, here], alone, rtol=1e-9, atol=1e-9)
                worst = max(worst, (ignored[row, here] - alone).abs().max().item())
        assert worst > 1e-3, "without the borders it is another model"


def test_packed_validation_does_not_look_over_borders(tiny, two, tmp_path):
    run = train.train(TrainConfig(**{**tiny, "data": (two[1],), "packing": "documents", "max_steps": 2},
                                  out_dir=str(tmp_path / "run")))  # fmt: skip
    losses = {}
    for packing in ("documents", "none"):
        job = LanguageJob(TrainConfig(**{**tiny, "data": (two[1],), "packing": packing}), RunFolder(run), resuming=True)
        job.device, job.autocast = torch.device("cpu"), torch.autocast("cpu", enabled=False)
        job.model = train.load_run(run).model
        losses[packing] = job.score().loss
    recorded = json.loads((run / "summary.json").read_text())["validation_loss"]
    assert losses["documents"] == recorded
    assert losses["none"] != recorded


def test_bytes_a_second_and_the_wait_for_data_are_recorded(tiny, tmp_path):
    run = train.train(TrainConfig(**{**tiny, "max_steps": 3}, out_dir=str(tmp_path / "run")))
    total = before = 0.0
    for row in rows(run):
        size, before = row["bytes"] - before, row["bytes"]
        assert row["bytes_per_second"] == pytest.approx(size / row["step_seconds"])
        assert 0 < row["data_seconds"] < row["step_seconds"]
        total += row["data_seconds"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data_share"] == pytest.approx(total / summary["seconds"], rel=0.2)
    assert summary["bytes_per_second"] == pytest.approx(summary["bytes"] / summary["seconds"], rel=0.2)


REFUSED = {
    "too few": ({"data_weights": (1.0,)}, "--data-weights must be one number for each of the 2 --data"),
    "zero": ({"data_weights": (1.0, 0.0)}, "--data-weights must be positive and finite"),
    "negative": ({"data_weights": (1.0, -2.0)}, "--data-weights must be positive and finite"),
    "nan": ({"data_weights": (1.0, float("nan"))}, "--data-weights must be positive and finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_are_none_are_refused_by_flag(case):
    values, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        TrainConfig(data=("a", "b"), **values)


def test_a_refused_run_leaves_no_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for changes in ({"data": ("nowhere",)}, {"text_field": "body", "data": ("x.jsonl",)}, {"block": 10**6}):
        (tmp_path / "x.jsonl").write_text('{"text": "x"}\n')
        for out in ("", "runs/one"):
            with pytest.raises(ValueError, match=r"nowhere|body|block"):
                train.train(TrainConfig(**{**tiny, **changes}, out_dir=out))
    assert not (tmp_path / "runs").exists()


def test_an_out_dir_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file; choose another --out-dir"):
        train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "file" / "run")))
