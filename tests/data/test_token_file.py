"""Tokens on disk are the tokens in memory, and a broken write leaves nothing."""

import numpy as np
import pytest

from spectrain import data

DOCUMENTS = [data.text.Document(name=str(i), text=f"line {i}\n" * (i % 7)) for i in range(50)]


@pytest.mark.parametrize("vocabulary", [257, 300])
def test_the_file_holds_what_memory_would(tmp_path, vocabulary):
    tokenizer = data.train_tokenizer("bpe", DOCUMENTS, vocabulary_size=vocabulary)
    kept = tokenizer.encode_documents(iter(DOCUMENTS), file=tmp_path / "tokens.npy")
    expected = tokenizer.encode_documents(DOCUMENTS)
    assert isinstance(kept, np.memmap)
    assert kept.dtype == expected.dtype
    assert np.array_equal(kept, expected)
    assert np.array_equal(np.load(tmp_path / "tokens.npy"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npy"]
    streams = [data.TokenStream(tokens, block=8, batch=4, seed=0) for tokens in (kept, expected)]
    assert all((a == b).all() for a, b in zip(*(stream.batch(9) for stream in streams), strict=True))


def breaks():
    yield DOCUMENTS[3]
    raise OSError("the network went away")


def test_a_broken_write_leaves_nothing(tmp_path):
    tokenizer = data.train_tokenizer("bytes", [])
    with pytest.raises(OSError, match="went away"):
        tokenizer.encode_documents(breaks(), file=tmp_path / "tokens.npy")
    with pytest.raises(data.DataError, match="no document"):
        tokenizer.encode_documents([], file=tmp_path / "tokens.npy")
    assert not list(tmp_path.iterdir())
