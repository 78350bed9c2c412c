"""A folder of transformers' typed into the command, trained, and exported: the same family, the same logits."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch

from spectrain import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own plans


@pytest.mark.parametrize(("family", "settings"), [("Llama", {}), ("Mistral", {"sliding_window": None})])
def test_a_folder_is_trained_and_exported_as_what_it_was(
    family, settings, spectrain, text, pretrained_folder, tmp_path
):
    folder = pretrained_folder(family, **settings)
    words = ["--data", text, "--max-steps", 3, "--batch-size", 2, "--spectrum-interval", 0, "--sample-tokens", 4]
    done = spectrain("train", "--init-from", folder, *words, "--autocast", "off", "--out-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "it normalises the text" in done.stdout
    done = spectrain("export", tmp_path / "run", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "begins with <|end|>" in done.stdout
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(there).__name__ == f"{family}ForCausalLM"
    ours = train.load_run(tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("the norm of a matrix, line 3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(there(ids).logits, ours.model(ids), rtol=1e-5, atol=1e-5)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|begin|>", "<|end|>", "<|pad|>")
    drawn = there.generation_config
    numbers = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (drawn.bos_token_id, drawn.eos_token_id, drawn.pad_token_id) == numbers
    assert there.config.bos_token_id == tokenizer.bos_token_id
    assert there.config.max_position_embeddings == 64
    assert there.config.pad_token_id is None  # an embedding of padding does not learn there


def test_a_run_of_ours_has_a_token_for_padding_there(spectrain, finished, tmp_path):
    done = spectrain("export", finished[0], "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(["a", "a longer text"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum() < batch["attention_mask"].numel()
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert said["pad_token_id"] == said["eos_token_id"] == tokenizer.eos_token_id


def test_text_is_prepared_with_the_tokenizer_of_a_folder(spectrain, text, pretrained_folder, tmp_path):
    folder = pretrained_folder("Llama")
    done = spectrain("prepare", "--data", text, "--tokenizer", folder, "--workers", 1, "--out-dir", tmp_path / "tokens")
    assert done.returncode == 0, done.stderr
    short = ["--max-steps", 1, "--batch-size", 2, "--spectrum-interval", 0, "--sample-tokens", 4, "--autocast", "off"]
    words = ["train", "--data", tmp_path / "tokens", *short, "--out-dir", tmp_path / "run"]
    done = spectrain(*words)
    assert done.returncode == 2
    assert f"give --tokenizer {tmp_path / 'tokens'}" in done.stderr
    done = spectrain(*words, "--init-from", folder)
    assert done.returncode == 0, done.stderr
    for tokenizer, words in (("nowhere", "--tokenizer must be bpe, bytes"), (tmp_path, "--tokenizer must be")):
        done = spectrain("prepare", "--data", text, "--tokenizer", tokenizer, "--out-dir", tmp_path / "other")
        assert done.returncode == 2
        assert words in done.stderr


def test_a_wrong_folder_is_one_line(spectrain, text, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("empty", "nowhere"):
        done = spectrain("train", "--init-from", tmp_path / place, "--data", text, "--out-dir", tmp_path / "run")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "nor is it a folder of transformers'" in done.stderr.lower()
        assert not (tmp_path / "run").exists()


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "docs" / "pretrained.md"
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```py\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        if "gguf" in block:
            pytest.importorskip("gguf", reason="files of GGUF are written by the package gguf")
        exec(compile(block, str(page), "exec"), {})
