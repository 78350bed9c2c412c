"""An exported run is read by transformers: the same tokens, the same text."""

import json
import warnings

import pytest
import torch

from spectrain import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of its own plans


def test_an_exported_run_writes_the_same_text_there(spectrain, finished, tmp_path):
    run, _ = finished
    done = spectrain("export", run, "--out", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    ours = train.load_run(run)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    prompt = "line 3, naïve\n"
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert ids == ours.tokenizer.encode(prompt).tolist()
    start = torch.tensor([[tokenizer.bos_token_id, *ids]])
    room = ours.config.block - start.shape[1]
    out = model.generate(start, max_new_tokens=room, do_sample=False, eos_token_id=-1, pad_token_id=0)
    text = ours.sample(prompt, tokens=room, temperature=0.0)
    assert tokenizer.decode(out[0, 1:], skip_special_tokens=True) == text
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["max_position_embeddings"] == ours.config.block


def test_a_folder_that_holds_something_is_left_alone(spectrain, finished, tmp_path):
    (tmp_path / "notes").write_text("mine")
    done = spectrain("export", finished[0], "--out", tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
