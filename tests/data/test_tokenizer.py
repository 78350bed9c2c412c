import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers

from spectrain import data
from spectrain.data._text.byte_level import PATTERN, assemble, byte_characters, pieces, pretokens

SOURCE = [d for d in data.read_documents() if d.name.startswith(("json/", "email/", "asyncio/"))]
BYTES = data.train_tokenizer("bytes", [])
BPE = data.train_tokenizer("bpe", SOURCE, vocabulary_size=1500)
BOTH = {"bytes": BYTES, "bpe": BPE}

TEXTS = [
    "",
    " ",
    "\n",
    "\x00",
    "a\x00\x00b\x00",
    "\r\n\r\n \t\r\n\x0b\x0c\x1c\x1d\x85\xa0\u2028\u3000\ufeff",
    "        return {self._x[0]: 'é' for _ in range(10**3)}  # ∑ 中文，標點。\n\n\n\tdef f():\n",
    "👩‍👩‍👧‍👦 e\u0301 \u202e \U0010ffff \ud7ff\ue000",
    "<|endoftext|> and <|endoftext|><|endoftext|>",
    "Ā ā Ġ Ċ ĉ č",
    " " * 5000,
    "\n" * 5000 + "x",
    "x" * 5000,
]

CODE = st.lists(
    st.sampled_from(["def ", "self", ".", "_x", "(", "):", "\n", "    ", "\t", "\r\n", " ", "=", "12", "é", "中", "‘"]),
    max_size=60,
).map("".join)


def check_round_trip(tokenizer, text):
    """Encoding loses nothing, stays in range, never forges the end, and byte_lengths tells the bytes."""
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.end_of_text not in ids
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())


@pytest.mark.parametrize("tokenizer", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_round_trip_of_odd_texts(tokenizer, text):
    check_round_trip(tokenizer, text)


@pytest.mark.parametrize("tokenizer", BOTH.values(), ids=BOTH)
@given(text=st.one_of(st.text(), CODE))
@settings(deadline=None)
def test_round_trip_of_any_text(tokenizer, text):
    check_round_trip(tokenizer, text)


class Wrong:
    """A tokenizer that goes wrong in one way and is right otherwise."""

    def __init__(self, *, before=str, after=lambda ids: ids, decode=lambda text: text, lengths=None):
        self.before, self.after, self.finish = before, after, decode
        self.end_of_text = BPE.end_of_text
        self.byte_lengths = BPE.byte_lengths if lengths is None else lengths

    def encode(self, text):
        return self.after(BPE.encode(self.before(text)))

    def decode(self, ids):
        return self.finish(BPE.decode(ids))


WRONG = {
    "drops a token": Wrong(after=lambda ids: np.delete(ids, len(ids) // 2) if len(ids) > 2 else ids),
    "normalises newlines": Wrong(before=lambda text: text.replace("\r\n", "\n")),
    "drops NUL": Wrong(before=lambda text: text.replace("\x00", "")),
    "strips": Wrong(decode=str.strip),
    "adds a space in front": Wrong(before=lambda text: " " + text),
    "forges the end": Wrong(after=lambda ids: np.append(ids, BPE.end_of_text).astype(np.int32)),
    "ASCII only": Wrong(before=lambda text: text.encode("ascii", "ignore").decode()),
    "counts one a token": Wrong(lengths=np.ones(BPE.vocabulary_size, dtype=np.int32)),
    "counts the end": Wrong(lengths=np.maximum(BPE.byte_lengths, 2)),
}


@pytest.mark.parametrize("tokenizer", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_tokenizers(tokenizer):
    with pytest.raises(AssertionError):
        for text in TEXTS:
            check_round_trip(tokenizer, text)


def test_half_a_character_is_replaced():
    ids = BYTES.encode("né")
    assert BYTES.decode(ids[:2]) == "n\ufffd"
    assert BYTES.decode(ids[2:]) == "\ufffd"
    assert BYTES.decode([]) == ""
    assert BYTES.decode([*ids, BYTES.end_of_text, *ids]) == "néné"


@pytest.mark.parametrize("tokenizer", BOTH.values(), ids=BOTH)
def test_the_library_reads_the_file_and_agrees(tokenizer, tmp_path):
    """``tokenizers`` alone, from the saved file, must give the same ids and the same text."""
    tokenizer.save(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.get_vocab_size() == tokenizer.vocabulary_size
    assert library.token_to_id("<|endoftext|>") == tokenizer.end_of_text
    for text in [d.text for d in SOURCE[:20]] + [t for t in TEXTS if "<|" not in t]:
        ids = tokenizer.encode(text)
        assert library.encode(text).ids == ids.tolist()
        assert library.decode(ids.tolist()) == text


@given(text=st.one_of(st.text(), CODE))
@settings(deadline=None)
@example(text="\x1c\x85\xa0\u180e\u2007 x \u1680y\u0345\u20dd\uff3fz")
def test_both_engines_cut_alike(text):
    """Python's ``re`` and the engine inside ``tokenizers`` must read the pattern in the same way."""
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    assert pretokens(text) == [piece for piece, _ in split.pre_tokenize_str(text)]
    assert "".join(pretokens(text)) == text
    assert all(pretokens(word) == [word] for word in pretokens(text))


@given(text=st.one_of(st.text(), CODE), size=st.integers(1, 20))
def test_pieces_are_the_text_and_cut_no_pre_token(text, size):
    parts = list(pieces(text, size=size))
    assert "".join(parts) == text
    assert all(len(part) <= 2 * size + 1 for part in parts)
    good = all(len(part) != 2 * size for part in parts)
    if good:
        assert [word for part in parts for word in pretokens(part)] == pretokens(text)


def test_every_single_character_is_cut_alike():
    everything = (
        "".join(chr(i) for i in range(0x3100) if not 0xD800 <= i < 0xE000) + "\uff00\uff21\uff3f\ufff0\U00010000"
    )
    for template in ("{}", "a{}", " {}", "{}\n x"):
        split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
        text = "|".join(template.format(c) for c in everything)
        assert pretokens(text) == [piece for piece, _ in split.pre_tokenize_str(text)]


def test_the_byte_table_is_that_of_the_library():
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for code in [*range(0x80), *range(0x80, 0x3000, 7)]:
        ((written, _),) = level.pre_tokenize_str(chr(code))
        assert written == "".join(byte_characters()[b] for b in chr(code).encode())


def test_the_layout_of_the_vocabulary():
    for tokenizer in (BYTES, BPE):
        assert tokenizer.end_of_text == tokenizer.vocabulary_size - 1
        assert BYTES.encode("\x00aé").tolist() == [0, 97, 0xC3, 0xA9]
        assert tokenizer.byte_lengths.dtype == np.int32
        assert tokenizer.byte_lengths[:256].tolist() == [1] * 256
        assert tokenizer.byte_lengths[tokenizer.end_of_text] == 0
    assert BYTES.vocabulary_size == 257
    assert BPE.vocabulary_size == 1500
    assert data.train_tokenizer("bytes", SOURCE, vocabulary_size=4096).vocabulary_size == 257


def check_merges(merges, text):
    """Byte-pair encoding as its definition says: each merge is of a pair that is most frequent then."""
    pieces_of_words = [[bytes([b]) for b in word.encode()] for word in pretokens(text)]
    for left, right in merges:
        pairs = Counter(pair for word in pieces_of_words for pair in itertools.pairwise(word))
        assert pairs[left, right] == max(pairs.values())
        for word in pieces_of_words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == (left, right):
                    word[i : i + 2] = [left + right]
                i += 1


def learned_merges(tokenizer):
    byte_of = {character: bytes([i]) for i, character in enumerate(byte_characters())}
    for pair in json.loads(tokenizer._backend.to_str())["model"]["merges"]:
        yield tuple(b"".join(byte_of[c] for c in side) for side in pair)


def test_the_merges_are_those_of_the_definition():
    tokenizer = data.train_tokenizer("bpe", SOURCE[:1], vocabulary_size=257 + 60)
    merges = list(learned_merges(tokenizer))
    assert len(merges) == 60
    check_merges(merges, SOURCE[0].text)
    assert [tokenizer.decode([256 + i]).encode() for i in range(60)] == [left + right for left, right in merges]


WRONG_MERGES = {
    "in another order": lambda merges: merges[::-1],
    "one left out": lambda merges: [*merges[:5], *merges[6:]],
    "rare pairs": lambda merges: [(b"z", b"q"), *merges],
}


@pytest.mark.parametrize("change", WRONG_MERGES.values(), ids=WRONG_MERGES)
def test_the_check_rejects_wrong_merges(change):
    tokenizer = data.train_tokenizer("bpe", SOURCE[:1], vocabulary_size=257 + 20)
    with pytest.raises(AssertionError):
        check_merges(change(list(learned_merges(tokenizer))), SOURCE[0].text)


def test_documents_are_joined_by_end_of_text():
    documents = [data.text.Document(name="a", text="one\n"), data.text.Document(name="b", text=""), SOURCE[0]]
    for tokenizer in BOTH.values():
        tokens = tokenizer.encode_documents(documents)
        assert tokens.dtype == np.uint16
        expected = [i for d in documents for i in [tokenizer.end_of_text, *tokenizer.encode(d.text).tolist()]]
        assert tokens.tolist() == expected
        assert tokenizer.decode(tokens) == "".join(d.text for d in documents)
    assert BPE.encode_documents([]).shape == (0,)


def test_a_large_vocabulary_needs_int32():
    words = [data.text.Document(name="w", text=" ".join(hashlib.sha256(bytes([i])).hexdigest() for i in range(40)))]
    big = assemble([])
    big.add_tokens([f"Ġ{byte_characters()[i // 256]}{byte_characters()[i % 256]}" for i in range(65536)])
    assert data.Tokenizer(big).encode_documents(words).dtype == np.int32


def test_long_texts_are_encoded_as_a_whole():
    """Cut into pieces or not, the ids are the same wherever a line begins with a word."""
    text = "".join(d.text for d in SOURCE)
    assert len(list(pieces(text))) > 3
    np.testing.assert_array_equal(BPE.encode(text), BPE._backend.encode(text).ids)
    check_round_trip(BPE, "x " * 300_000)


def test_a_full_cache_changes_nothing(monkeypatch):
    expected = BPE.encode_documents(SOURCE)
    monkeypatch.setattr("spectrain.data._text.tokenizer._CACHE", 100)
    np.testing.assert_array_equal(BPE.encode_documents(SOURCE), expected)


def test_training_is_deterministic_on_any_number_of_threads(tmp_path):
    """Three processes with other hash seeds and thread counts write the same file."""
    code = (
        "import sys; from spectrain import data; "
        "documents = [d for d in data.read_documents() if d.name.startswith(('json/', 'email/', 'asyncio/'))]; "
        "data.train_tokenizer('bpe', documents, vocabulary_size=1500).save(sys.argv[1])"
    )
    files = []
    for threads in ("1", "2", "7"):
        files.append(tmp_path / f"{threads}.json")
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, files[-1]], env=environment, check=True)
    BPE.save(tmp_path / "here.json")
    assert {file.read_bytes() for file in files} == {(tmp_path / "here.json").read_bytes()}


def test_save_and_load(tmp_path):
    for tokenizer in BOTH.values():
        tokenizer.save(tmp_path / "tokenizer.json")
        loaded = data.load_tokenizer(tmp_path / "tokenizer.json")
        assert loaded.vocabulary_size == tokenizer.vocabulary_size
        np.testing.assert_array_equal(loaded.encode_documents(SOURCE), tokenizer.encode_documents(SOURCE))
        np.testing.assert_array_equal(loaded.byte_lengths, tokenizer.byte_lengths)
        loaded.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
        for text in TEXTS:
            check_round_trip(loaded, text)


def test_a_tokenizer_with_other_pre_tokens_is_used_as_it_is(tmp_path):
    """GPT-2's pre-tokens: the ids must be the library's, and no text may be cut in pieces."""
    other = assemble([("Ġ", "Ġ"), ("Ċ", "Ċ"), ("a", "b")])
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    other.save(str(tmp_path / "gpt2.json"))
    loaded = data.load_tokenizer(tmp_path / "gpt2.json")
    for text in [*TEXTS, "ab\n\n  ab\n" * 30_000]:
        check_round_trip(loaded, text)
        if "<|" not in text:
            assert loaded.encode(text).tolist() == other.encode(text).ids


def without_a_byte(backend):
    vocabulary = {token: i for i, token in enumerate(byte_characters()[1:])}
    result = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    result.add_special_tokens(["<|endoftext|>"])
    return result


def words(backend):
    result = tokenizers.Tokenizer(models.WordLevel({"hello": 0, "wörld 中": 1}, "hello"))
    result.add_special_tokens(["<|endoftext|>"])
    return result


def without_an_end(backend):
    return tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(byte_characters())}, []))


def lower_case(backend):
    backend.normalizer = normalizers.Lowercase()
    return backend


def space_in_front(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return backend


BAD = {
    "a byte missing": (without_a_byte, "1 of 256 bytes"),
    "words": (words, "not a byte-level"),
    "no end of text": (without_an_end, "endoftext"),
    "changes the text": (lower_case, "changes the text.*normalizer"),
    "a space in front": (space_in_front, "changes the text"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_tokenizers_are_refused(tmp_path, case):
    make, message = BAD[case]
    make(assemble([])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(data.DataError, match=message) as caught:
        data.load_tokenizer(tmp_path / "tokenizer.json")
    assert "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\x01", b'{"version": "1.0", "model": {"type": "BPE"', b"\xff"])
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(data.DataError, match=r"tokenizer.json is not a tokenizer\.json"):
        data.load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(FileNotFoundError):
        data.load_tokenizer(tmp_path / "missing.json")


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 257"):
        data.train_tokenizer("bpe", SOURCE, vocabulary_size=256)
    with pytest.raises(data.DataError, match="no text"):
        data.train_tokenizer("bpe", [data.text.Document(name="a", text="")], vocabulary_size=300)
    for ids in ([257], [-1], [0, 100_000]):
        with pytest.raises(ValueError, match="between 0 and 256"):
            BYTES.decode(ids)
    for tokenizer in BOTH.values():
        with pytest.raises(data.DataError, match="surrogate"):
            tokenizer.encode("a\ud800b")


def test_a_text_with_few_pairs_gives_a_smaller_vocabulary():
    tokenizer = data.train_tokenizer("bpe", [data.text.Document(name="a", text="ab")], vocabulary_size=4096)
    assert tokenizer.vocabulary_size < 260
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


def test_the_sample_is_spread_over_the_text(monkeypatch):
    from spectrain.data._text import tokenizer_training as training

    monkeypatch.setattr(training, "_SAMPLE", 20_000)
    monkeypatch.setattr(training, "_PIECE", 1_000)
    documents = [data.text.Document(name=str(i), text=f"{i:03}: text\n" * 100) for i in range(400)]
    texts = [document.text for document in documents]
    sample = list(training.sample(texts, sum(map(len, texts))))
    assert 18_000 < sum(map(len, sample)) < 24_000
    taken = {int(piece[:3]) for piece in sample}
    assert max(np.diff(sorted({0, 399} | taken))) < 60
    assert len(taken) >= 10
