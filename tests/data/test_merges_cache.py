"""A tokenizer is learned once: the second time it comes from the cache, unless something is not what it should be."""

import json

import pytest

from spectrain import data
from spectrain.data._text import merges_cache, tokenizer_training

WORDS = "def spectrum(matrix): return [value for value in matrix if value > 0]\n"
TEXT = [data.text.Document(name="text", text="".join(WORDS.replace("value", f"value{i % 97}") for i in range(4500)))]
SIZE = 300


@pytest.fixture
def learned(monkeypatch, tmp_path):
    """A cache folder of its own, and how often merges were learned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, original = [], tokenizer_training._learn_merges

    def counted(texts, count):
        calls.append(count)
        return original(texts, count)

    monkeypatch.setattr(tokenizer_training, "_learn_merges", counted)
    return calls


def _files(tmp_path):
    return sorted(tmp_path.glob("spectrain/tokenizers/*"))


def _trained(documents=TEXT, size=SIZE, **settings):
    return data.train_tokenizer("bpe", documents, vocabulary_size=size, **settings).fingerprint


def test_merges_are_learned_once(learned, tmp_path):
    fresh = _trained(cache=False)
    assert not _files(tmp_path)
    assert [_trained() for _ in range(3)] == [fresh] * 3
    assert len(learned) == 2
    assert len(_files(tmp_path)) == 1


def test_what_decides_them_is_in_the_key(learned, tmp_path):
    text = TEXT[0].text
    other = [data.text.Document(name="text", text=text.replace("return", "yields"))]
    two = [data.text.Document(name=str(i), text=part) for i, part in enumerate((text[:70_001], text[70_001:]))]
    asked = [(TEXT, SIZE), (other, SIZE), (TEXT, SIZE + 1), (two, SIZE)]
    found = [_trained(*each) for each in asked]
    assert len(learned) == len(_files(tmp_path)) == 4
    assert len(set(found[:3])) == 3
    assert found == [_trained(*each, cache=False) for each in asked]


def test_small_texts_are_learned_every_time(learned, tmp_path):
    small = [data.text.Document(name="text", text=WORDS * 20)]
    assert _trained(small) == _trained(small)
    assert len(learned) == 2
    assert not _files(tmp_path)


def _changed(**values):
    """The file with other values and a digest that is right for them."""

    def change(text):
        found = json.loads(text) | values
        return json.dumps({**found, "digest": merges_cache._digest(found["key"], found["merges"])})

    return change


WRONG = {
    "no JSON": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not an object": lambda text: "[]",
    "one merge changed": lambda text: text.replace('"merges": [[', '"merges": [["a", "b"], [', 1),
    "a digest that is another's": lambda text: json.dumps({**json.loads(text), "digest": "0" * 64}),
    "another key": _changed(key="0" * 64),
    "no merges": lambda text: json.dumps({"key": json.loads(text)["key"]}),
    "tokens that were not there": _changed(merges=[["xy", "z"]]),
    "numbers": _changed(merges=[[1, 2]]),
    "more than were asked for": _changed(merges=[["a", "b"]] * SIZE),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_learned_again_and_replaced(learned, tmp_path, wrong):
    right = _trained()
    (file,) = _files(tmp_path)
    good = file.read_text(encoding="utf-8")
    file.write_text(wrong(good), encoding="utf-8")
    assert _trained() == right
    assert len(learned) == 2
    assert file.read_text(encoding="utf-8") == good
    assert _trained() == right
    assert len(learned) == 2


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(learned, tmp_path):
    (tmp_path / "spectrain").write_text("a file where the folder should be")
    assert _trained() == _trained()
    assert len(learned) == 2
