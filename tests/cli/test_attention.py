"""A kind of attention from the command line: trained with its size, then sampled beyond its block."""

import json

from spectrain import train


def test_sinks_are_trained_and_write_on_past_the_block(spectrain, tiny, tmp_path):
    run = tmp_path / "run"
    flags = ("--attention", "sinks", "--window", 5, "--sinks", 2, "--max-steps", 4)
    done = spectrain("train", *tiny, *flags, "--out-dir", run)
    assert done.returncode == 0, done.stderr
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert (config["attention"], config["window"], config["sinks"], config["kv_heads"]) == ("sinks", 5, 2, 1)
    trained = train.load_run(run)
    assert [(block.attention.window, block.attention.kind.sinks) for block in trained.model.blocks] == [(5, 2)]
    texts = ["".join(p[0] for p in trained.stream(["line"], tokens=40, form=form)) for form in ("auto", "full")]
    assert texts[0] == texts[1]
    assert len(trained.tokenizer.encode(texts[0])) > 2 * trained.config.block
