"""The job that searches: judged by brute force, exact whatever the chunks, resumed bit for bit."""

import json
import math
import os
import signal

import numpy as np
import pytest
import safetensors.torch
import torch

from spectrain import data, train
from spectrain.train._jobs.embed_config import EmbedConfig
from spectrain.train._jobs.ranking import BM25, best_share, mix, ranking, words
from spectrain.train._saved.search import Search

TINY = {
    "depth": 1, "width": 32, "heads": 2, "vocabulary": 400, "batch_size": 32, "micro_batch_size": 8, "max_steps": 12,
    "warmup": 2, "eval_interval": 6, "save_interval": 4, "spectrum_interval": 6, "threads": 1, "autocast": "off",
    "muon_dtype": "float32", "device": "cpu", "resume": "auto", "validation_fraction": 0.25,
}  # fmt: skip
VERBS = ["open", "close", "read", "write", "sort", "parse", "merge", "split", "count", "print"]
NOUNS = ["file", "socket", "list", "date", "matrix", "string", "stream", "table", "page", "word"]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    """A hundred pairs in which the words of query and document differ, but for a common code."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {
            "query": f"{verb} the {noun}",
            "document": f"def do_{verb}{noun}(x): return {noun[::-1]} {verb[::-1]}",
            "group": noun,
        }
        for verb in VERBS
        for noun in NOUNS
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def rows(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, pairs_file):
    out = tmp_path_factory.mktemp("embed") / "run"
    return train.train(EmbedConfig(**TINY, data=(str(pairs_file),), out_dir=str(out)))


def test_a_run_judges_searches_and_sums_up(reference):
    steps = [row for row in rows(reference) if row["kind"] == "step"]
    assert steps[-1]["pairs"] == 12 * 32
    assert steps[-1]["loss"] < steps[0]["loss"]
    summary = json.loads((reference / "summary.json").read_text())
    assert 0 < summary["mrr"] <= summary["recall_10"] + 0.1
    assert {"mrr_bm25", "mrr_combined", "recall_10_combined", "recall_1", "share"} <= set(summary)
    assert "wanted: " in (reference / "samples.txt").read_text()


def test_it_resumes_bit_for_bit(reference, tmp_path, pairs_file):
    class Bomb(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    asked = EmbedConfig(**TINY, data=(str(pairs_file),), out_dir=str(tmp_path / "run"))
    with pytest.raises(train.runs.StopRequest):
        train.train(asked, progress=Bomb())
    run = train.train(asked)
    assert rows(run) == rows(reference)
    ours, theirs = (safetensors.torch.load_file(path / "model.safetensors") for path in (run, reference))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("changes", [{"micro_batch_size": 32}, {"two_towers": True}, {"depth": 0}], ids=str)
def test_other_shapes_run_and_chunks_change_rounding_only(reference, tmp_path, pairs_file, changes):
    run = train.train(EmbedConfig(**{**TINY, **changes}, data=(str(pairs_file),), out_dir=str(tmp_path / "run")))
    if "micro_batch_size" in changes:
        for a, b in zip(rows(reference), rows(run), strict=True):
            if a["kind"] == "step":
                assert b["loss"] == pytest.approx(a["loss"], rel=2e-3)


def test_a_search_answers_and_refuses_nothing_at_all(reference):
    search = Search(reference)
    hits = search("sort the table", top=3)
    assert len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    with pytest.raises(ValueError, match="the query is empty"):
        search(" ")


def test_only_a_run_of_this_job_is_searched(tmp_path):
    with pytest.raises(ValueError, match=r"not a run folder of spectrain embed"):
        Search(tmp_path)


def test_bm25_is_its_formula():
    documents = ["alpha beta beta", "alpha gamma", "delta delta delta delta"]
    found = BM25(documents, k1=1.5, b=0.6).scores(["beta alpha alpha zeta", "delta"])
    counts = [d.split() for d in documents]
    mean = sum(map(len, counts)) / 3
    for q, query in enumerate((["beta", "alpha", "alpha"], ["delta"])):
        for d, count in enumerate(counts):
            score = 0.0
            for word in query:
                f, n = count.count(word), sum(word in c for c in counts)
                score += math.log(1 + (3 - n + 0.5) / (n + 0.5)) * f * 2.5 / (f + 1.5 * (0.4 + 0.6 * len(count) / mean))
            assert found[q, d] == pytest.approx(score, rel=1e-12)
    assert words("readHTTPLine_2x(self)") == ["read", "http", "line", "2", "x", "self"]


def test_ranks_are_counted_by_hand_and_ties_are_no_find():
    scores = np.array([[3.0, 2.0, 1.0], [5.0, 4.0, 4.5], [1.0, 1.0, 1.0]])
    assert ranking(scores).mrr == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert ranking(np.zeros((20, 20))).recall_10 == 0
    assert ranking(np.eye(20)).recall_1 == 1


def test_the_mixture_is_no_worse_than_its_parts_where_it_is_chosen():
    draw = np.random.default_rng(0)
    a, b = (np.eye(60) * 1.5 + draw.standard_normal((60, 60)) for _ in range(2))
    share = best_share(a, 1000 * b)
    assert ranking(mix(a, 1000 * b, share)).mrr > max(ranking(a).mrr, ranking(b).mrr)
    assert 0.2 < share < 0.8  # both are as good, whatever their scales


BROKEN = {
    "not json": ('{"query": "a b"', "line 1 is not JSON"),
    "a list": ("[1]", "line 1 holds a list"),
    "no document": ('{"query": "a b", "document": "x"}\n\n{"query": "a b"}', "line 3: 'document' must be a string"),
    "a number": ('{"query": 3, "document": "x"}', "line 1: 'query' must be a string, got 3"),
    "nothing": ("\n", "no pair was found"),
    "one group": ('{"query": "a b", "document": "x"}', "cannot be divided"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    text, message = BROKEN[name]
    (tmp_path / "pairs.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(data.DataError, match=message):
        train.train(EmbedConfig(**TINY, data=(str(tmp_path / "pairs.jsonl"),), out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(("bad", "message"), [({"batch_size": 1}, "at least 2"), ({"temperature": 0.0}, "positive")])
def test_impossible_values_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        EmbedConfig(**bad)


def test_functions_of_the_standard_library_have_no_docstring_left():
    pairs = data.read_pairs()
    assert len(pairs) > 4000
    assert all(len(pair.query.split()) > 1 and pair.document.strip() for pair in pairs)
    assert sum(pair.query in pair.document for pair in pairs) < 0.02 * len(pairs)
    rest, held_out = data.text.split_pairs(pairs, fraction=0.15, seed=0)
    assert not {pair.group for pair in rest} & {pair.group for pair in held_out}
    assert abs(len(held_out) / len(pairs) - 0.15) < 0.02
