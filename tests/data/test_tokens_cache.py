"""Tokens are made once: the second time they come from the cache, unless something is not what it should be."""

import hashlib
import json
import os

import numpy as np
import pytest

from spectrain import data
from spectrain.data._text import tokens_cache

WORDS = "def spectrum(matrix): return [value for value in matrix if value > 0]\n"
TEXT = "".join(WORDS.replace("value", f"value{i % 97}") for i in range(4500))


def documents(*texts):
    return [data.text.Document(name=str(i), text=text) for i, text in enumerate(texts)]


TWO = documents(TEXT[:70_001], TEXT[70_001:])


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer("bpe", TWO, vocabulary_size=300, cache=False)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A cache folder of its own, and how often tokens were made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, original = [], data.Tokenizer._gather

    def counted(self, given):
        calls.append(given)
        return original(self, given)

    monkeypatch.setattr(data.Tokenizer, "_gather", counted)
    return calls


def _files(tmp_path):
    return sorted(tmp_path.glob("spectrain/tokens/*"))


def _same(found, right):
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found, right)


def test_tokens_are_made_once(made, tmp_path, tokenizer):
    fresh = tokenizer.encode_documents(TWO)
    assert not _files(tmp_path)
    for _ in range(3):
        _same(tokenizer.encode_documents(iter(TWO), cache=True), fresh)
    assert len(made) == 2
    (file,) = _files(tmp_path)
    assert file.stat().st_size < fresh.nbytes + 1024


def test_tokens_of_a_large_vocabulary_are_kept_in_their_own_dtype(made, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(data.Tokenizer, "dtype", np.dtype(np.int32))
    found = [tokenizer.encode_documents(TWO, cache=True) for _ in range(2)]
    _same(*found)
    assert len(made) == 1


def _later(tokenizer, monkeypatch):
    monkeypatch.setattr(tokens_cache.tokenizers, "__version__", "99")
    return tokenizer


def _other_code(tokenizer, monkeypatch):
    original = tokens_cache.inspect.getsource
    monkeypatch.setattr(tokens_cache.inspect, "getsource", lambda of: original(of).replace("1 << 16", "1 << 15"))
    tokens_cache._code.cache_clear()
    return tokenizer


def _other_merges(tokenizer, monkeypatch):
    return data.train_tokenizer("bpe", TWO, vocabulary_size=299, cache=False)


def _other_end(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "end_of_text", 5)
    return tokenizer


def _not_exact(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "_exact", False)
    return tokenizer


OTHERS = {
    "another release of tokenizers": _later,
    "other code": _other_code,
    "a merge less": _other_merges,
    "another end of text": _other_end,
    "text that may be changed": _not_exact,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_whoever_else_makes_them_makes_them_anew(made, tmp_path, tokenizer, monkeypatch, other):
    tokenizer.encode_documents(TWO, cache=True)
    other(tokenizer, monkeypatch).encode_documents(TWO, cache=True)
    tokens_cache._code.cache_clear()
    assert len(made) == len(_files(tmp_path)) == 2


def test_a_tokenizer_that_gives_the_same_tokens_finds_them(made, tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer.json")
    right = tokenizer.encode_documents(TWO, cache=True)
    _same(data.load_tokenizer(tmp_path).encode_documents(TWO, cache=True), right)
    assert len(made) == 1


ALTERED = {
    "a letter": documents(TWO[0].text.replace("return", "retusn", 1), TWO[1].text),
    "another border": documents(TEXT[:70_002], TEXT[70_002:]),
    "another order": TWO[::-1],
    "one document": documents(TEXT),
    "a document more": [*TWO, *documents("")],
    "a line end": documents(TWO[0].text, TWO[1].text + "\n"),
}


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
def test_altered_text_never_gets_tokens_of_before(made, tmp_path, tokenizer, altered):
    tokenizer.encode_documents(TWO, cache=True)
    for _ in range(2):
        _same(tokenizer.encode_documents(altered, cache=True), tokenizer.encode_documents(altered))
    assert len(made) == 4
    assert len(_files(tmp_path)) == 2


def test_names_decide_nothing(made, tokenizer):
    tokenizer.encode_documents(TWO, cache=True)
    renamed = [data.text.Document(name=f"other {document.name}", text=document.text) for document in TWO]
    tokenizer.encode_documents(renamed, cache=True)
    assert len(made) == 1


def test_small_texts_and_tokens_for_a_file_are_made_every_time(made, tmp_path, tokenizer):
    small = documents(WORDS * 20)
    for _ in range(2):
        tokenizer.encode_documents(small, cache=True)
    assert len(made) == 2
    tokenizer.encode_documents(TWO, cache=True, file=tmp_path / "tokens.npy")
    assert not _files(tmp_path)


def _forged(change):
    """Other tokens, with a line before them whose digest is right."""

    def forge(content):
        line, tokens = content.split(b"\n", 1)
        return (lambda key, held: tokens_cache._line(key, held) + held)(json.loads(line)["key"], change(tokens))

    return forge


def _line_with(**values):
    def change(content):
        line, tokens = content.split(b"\n", 1)
        return json.dumps(json.loads(line) | values).encode() + b"\n" + tokens

    return change


def _of_another_key(content):
    tokens = content.split(b"\n", 1)[1]
    return tokens_cache._line("0" * 64, tokens) + tokens


WRONG = {
    "empty": lambda content: b"",
    "the line alone": lambda content: content.split(b"\n")[0],
    "no tokens": lambda content: content.split(b"\n")[0] + b"\n",
    "half": lambda content: content[: len(content) // 2],
    "the last byte gone": lambda content: content[:-1],
    "a byte more": lambda content: content + b"\0",
    "no line": lambda content: content.split(b"\n", 1)[1],
    "a line without end": lambda content: b"x" * len(content),
    "a bit of the first token": lambda content: content.replace(b"\n", b"\n\x01", 1)[: len(content)],
    "a bit of the last token": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "two tokens changed round": lambda content: content[:-4] + content[-2:] + content[-4:-2],
    "zeros, as a crash leaves them": lambda content: content.split(b"\n")[0] + b"\n" + bytes(len(content)),
    "a digest that is another's": _line_with(digest="0" * 64),
    "another key": _line_with(key="0" * 64),
    "the tokens of another text": _of_another_key,
    "forged: a token beyond the vocabulary": _forged(lambda tokens: tokens[:-2] + b"\xff\xff"),
    "forged: a token gone": _forged(lambda tokens: tokens[:-2]),
    "forged: half a token": _forged(lambda tokens: tokens[:-1]),
    "forged: no end of text": _forged(lambda tokens: b"a\0" * (len(tokens) // 2)),
    "forged: nothing": _forged(lambda tokens: b""),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_made_again_and_replaced(made, tmp_path, tokenizer, wrong):
    right = tokenizer.encode_documents(TWO, cache=True)
    (file,) = _files(tmp_path)
    good = file.read_bytes()
    assert wrong(good) != good
    file.write_bytes(wrong(good))
    _same(tokenizer.encode_documents(TWO, cache=True), right)
    assert len(made) == 2
    assert file.read_bytes() == good
    _same(tokenizer.encode_documents(TWO, cache=True), right)
    assert len(made) == 2


def test_the_digest_is_that_of_the_tokens(made, tmp_path, tokenizer):
    tokens = tokenizer.encode_documents(TWO, cache=True)
    (file,) = _files(tmp_path)
    said = json.loads(file.read_bytes().split(b"\n")[0])
    assert said["digest"] == hashlib.sha256(file.name.encode() + tokens.tobytes()).hexdigest()
    assert said["bytes"] == tokens.nbytes


def test_a_lone_surrogate_is_refused_each_time(made, tmp_path, tokenizer):
    bad = documents(TEXT + "\ud800")
    for _ in range(2):
        with pytest.raises(data.DataError, match="surrogate"):
            tokenizer.encode_documents(bad, cache=True)
    assert not _files(tmp_path)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(made, tmp_path, tokenizer):
    (tmp_path / "spectrain").write_text("a file where the folder should be")
    _same(*(tokenizer.encode_documents(TWO, cache=True) for _ in range(2)))
    assert len(made) == 2


@pytest.mark.parametrize("error", [OSError("no source"), TypeError("a built-in class")])
def test_code_whose_source_is_not_here_keeps_nothing(made, tmp_path, tokenizer, monkeypatch, error):
    def missing(of):
        raise error

    tokens_cache._code.cache_clear()
    monkeypatch.setattr(tokens_cache.inspect, "getsource", missing)
    tokenizer.encode_documents(TWO, cache=True)
    assert not _files(tmp_path)


def test_what_was_used_longest_ago_makes_room(made, tmp_path, tokenizer, monkeypatch):
    texts = [documents(f"{i}\n{TEXT}") for i in range(4)]
    sizes = []
    for i, text in enumerate(texts[:3]):
        tokenizer.encode_documents(text, cache=True)
        new = max(_files(tmp_path), key=lambda file: file.stat().st_mtime_ns)
        os.utime(new, (1000 + i, 1000 + i))
        sizes.append(new.stat().st_size)
    tokenizer.encode_documents(texts[0], cache=True)  # used, and so no longer the oldest
    assert len(made) == 3
    monkeypatch.setattr(tokens_cache, "MOST", int(3.5 * max(sizes)))
    tokenizer.encode_documents(texts[3], cache=True)
    assert len(_files(tmp_path)) == 3
    for text, known in zip(texts, (True, False, True, True), strict=True):
        made.clear()
        monkeypatch.setattr(tokens_cache, "MOST", 1 << 28)
        tokenizer.encode_documents(text, cache=True)
        assert (not made) is known


def test_what_is_too_large_is_not_kept(made, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokens_cache, "_LARGEST", 10_000)
    tokenizer.encode_documents(TWO, cache=True)
    assert not _files(tmp_path)
