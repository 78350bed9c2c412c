"""``spectrain export --format gguf``: one file with weights, numbers and tokens, or a line that says why not."""

import json
import sys

import numpy as np
import pytest

from spectrain import train

gguf = pytest.importorskip("gguf", reason="files of GGUF are written by the package gguf")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished run on single bytes, as the plain Llama that transformers knows."""
    from .conftest import call

    place = tmp_path_factory.mktemp("runs") / "bytes"
    done = call("train", *tiny, "--tokenizer", "bytes", "--block", 48, "--max-steps", 40, "--out-dir", place)
    assert done.returncode == 0, done.stderr
    return place


def said(file):
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def test_a_run_goes_out_and_is_read_by_the_package(spectrain, run, tmp_path):
    file = tmp_path / "run.gguf"
    done = spectrain("export", run, "--format", "gguf", "--out", file)
    assert done.returncode == 0, done.stderr
    assert f"llama-cli -m {file}" in done.stdout
    ours, found = train.load_run(run), said(file)
    name = found["general.architecture"]
    assert found["general.name"] == "bytes"
    assert found[f"{name}.context_length"] == ours.config.block
    assert found[f"{name}.vocab_size"] == len(found["tokenizer.ggml.tokens"]) == 257
    assert found["tokenizer.ggml.bos_token_id"] == found["tokenizer.ggml.eos_token_id"] == ours.tokenizer.end_of_text
    tensors = {each.name: np.array(each.data) for each in gguf.GGUFReader(file).tensors}
    assert np.array_equal(tensors["output.weight"], ours.model.head.weight.detach().numpy())
    down = ours.model.blocks[0].feed_forward.down.weight
    assert np.array_equal(tensors["blk.0.ffn_down.weight"], down.detach().numpy())


def test_a_file_that_is_there_is_left_alone(spectrain, run, tmp_path):
    (tmp_path / "run.gguf").write_text("mine")
    done = spectrain("export", run, "--format", "gguf", "--out", tmp_path / "run.gguf")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is there; give the name of a new file" in done.stderr
    assert (tmp_path / "run.gguf").read_text() == "mine"


def test_a_tokenizer_without_a_name_there_is_refused(spectrain, finished, tmp_path):
    done = spectrain("export", finished[0], "--format", "gguf", "--out", tmp_path / "run.gguf")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "llama.cpp has no name for the pattern" in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_run_without_a_tokenizer_is_refused(spectrain, run, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes((run / name).read_bytes())
    done = spectrain("export", tmp_path / "run", "--format", "gguf", "--out", tmp_path / "run.gguf")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no tokenizer.json; restore it" in done.stderr


def test_a_missing_package_is_named_with_its_extra(spectrain, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    done = spectrain("export", run, "--format", "gguf", "--out", tmp_path / "run.gguf")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "needs gguf, which is not installed: pip install 'spectrain[gguf]'" in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_normalizer_is_said(spectrain, text, pretrained_folder, tmp_path):
    folder = pretrained_folder("Llama")
    words = ["--data", text, "--max-steps", 2, "--batch-size", 2, "--spectrum-interval", 0, "--sample-tokens", 4]
    done = spectrain("train", "--init-from", folder, *words, "--autocast", "off", "--out-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = spectrain("export", tmp_path / "run", "--format", "gguf", "--out", tmp_path / "run.gguf")
    assert done.returncode == 0, done.stderr
    assert "does not normalise text" in done.stderr
    found = said(tmp_path / "run.gguf")
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    numbers = json.loads((folder / "config.json").read_text())
    roles = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    for role, key in roles.items():
        assert found[f"tokenizer.ggml.{role}_token_id"] == numbers[key]
    assert len(found["tokenizer.ggml.tokens"]) == 320  # of the embedding; the tokenizer has fewer
    assert found["llama.rope.freq_base"] == 10_000.0
    assert found["llama.attention.head_count_kv"] == 2
