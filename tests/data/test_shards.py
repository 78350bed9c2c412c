"""Shards hold the tokens that memory would, whatever is killed on the way, and damaged ones are named."""

import functools
import gzip
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrain import data
from spectrain.data._shards import encode as _encode
from spectrain.data._shards import jobs as _jobs
from spectrain.data._shards import prepare as _prepare
from spectrain.data._shards import scan as _scan
from spectrain.data._text import open as _open
from spectrain.data._text.byte_level import pieces
from spectrain.data._text.files import read_parts

WORDS = ["the", "norm", "of", "a", "matrix", "é", "größer", "矩阵", "🙂", "x_1 =", "42"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Bytes come seven at a time and jobs are small, so that all borders are met."""
    monkeypatch.setattr(_open, "_PIECE", 7)
    monkeypatch.setattr(_jobs, "_SIZE", 200)
    monkeypatch.setattr(_prepare, "_COMMIT", 2)


def lines(count, seed):
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) + "\n" for _ in range(count))


def many(folder):
    for i in range(40):
        (folder / f"{i % 3}").mkdir(exist_ok=True)
        (folder / f"{i % 3}" / f"{i}.txt").write_text(lines(1 + i % 9, i), encoding="utf-8")
    return [folder]


def packed(folder):
    for i in range(12):
        (folder / f"{i}.txt.gz").write_bytes(gzip.compress(lines(9, i).encode()))
    return [folder / "*.gz"]


def copies(folder):
    for i in range(24):
        (folder / f"{i}.txt").write_text(lines(4, i % 8), encoding="utf-8")
    return [folder]


def book(folder):
    (folder / "book.txt").write_text("\ufeff" + lines(300, 0).replace("\n", "\r\n"), encoding="utf-8")
    return [folder / "book.txt"]


def volumes(folder):
    for i in range(3):
        (folder / f"{i}.txt").write_text(lines(90, i), encoding="utf-8")
    (folder / "9.txt").write_text("é", encoding="utf-8")
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbf")
    return [folder]


def one_line(folder):
    (folder / "line.txt").write_text("word " * 60_000, encoding="utf-8")
    return [folder / "line.txt"]


def unlike(folder):
    many(folder)
    (folder / "0" / "latin.txt").write_bytes(b"abc" * 9 + b"\xe9")
    (folder / "0" / "none.txt").write_bytes(b"")
    (folder / "0" / "binary").write_bytes(b"a\0b")
    return [folder]


TEXTS = {f.__name__: f for f in (many, packed, copies, book, volumes, one_line, unlike)}
ASKED = {"fraction": 0.1, "seed": 3, "vocabulary": 290}


def in_memory(paths, *, fraction=0.1, seed=3, vocabulary=290):
    """Tokenizer, training and held-out tokens by the functions that keep everything."""
    train, held_out = data.split_documents(data.read_documents(paths), fraction=fraction, seed=seed)
    tokenizer = data.train_tokenizer("bpe", train, vocabulary_size=vocabulary)
    return tokenizer, train, held_out


def check(prepare, paths, folder):
    """What shards must be: the tokenizer and the arrays of memory, where documents begin, and bytes."""
    tokenizer, train, held_out = in_memory(paths)
    made = prepare([paths], folder, **ASKED)
    assert made.tokenizer.same_as(tokenizer)
    for shard, documents in zip((*made.sources, made.held_out), (train, held_out), strict=True):
        expected = tokenizer.encode_documents(documents)
        assert isinstance(shard.tokens, np.memmap)
        assert shard.tokens.dtype == expected.dtype
        assert np.array_equal(shard.tokens, expected)
        assert np.array_equal(shard.starts, np.flatnonzero(expected == tokenizer.end_of_text))
        assert shard.bytes == sum(len(document.text.encode()) for document in documents)
    parts = [tokenizer.encode_documents(part) for part in (train, held_out)]
    assert made.fingerprint == data.shards.fingerprint(*parts)
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_shards_hold_the_tokens_of_memory(tmp_path, text):
    (tmp_path / "text").mkdir()
    check(data.shards.prepare, TEXTS[text](tmp_path / "text"), tmp_path / "out")


def pieces_of_parts(text, *, size=1 << 16):
    for part in (text,) if isinstance(text, str) else text:
        yield from pieces(part, size=size)


class Late(_jobs.Parted):
    def __init__(self, flow, cut):
        super().__init__(flow, cut and cut - 1)


ADD, DIVIDE, READ = _jobs.Job.add, _prepare.divide, _scan.Scan.read


def add_what_is_not_empty(job, text, *, begins):
    if text:
        ADD(job, text, begins=begins)


WRONG = {
    "parts are tokenized one by one": (_jobs, "pieces", pieces_of_parts),
    "cut a character too early": (_jobs, "Parted", Late),
    "empty documents have no end-of-text": (_jobs.Job, "add", add_what_is_not_empty),
    "held out by another seed": (_prepare, "divide", lambda scan, **asked: DIVIDE(scan, **asked | {"seed": 4})),
    "in another order": (_scan.Scan, "read", lambda self: iter(sorted(READ(self), key=lambda pair: -pair[0]))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_check_rejects_wrong_shards(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(*WRONG[wrong])
    (tmp_path / "text").mkdir()
    paths = volumes(tmp_path / "text")
    if wrong == "held out by another seed":
        paths = many(tmp_path / "text")
    with pytest.raises((AssertionError, data.DataError)):
        check(data.shards.prepare, paths, tmp_path / "out")


def rows(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return [path]


def test_rows_come_in_their_order_and_are_divided_as_ever(tmp_path):
    paths = rows(tmp_path / "a.jsonl", [lines(3, i % 30) for i in range(120)])
    tokenizer, train, held_out = in_memory(paths)
    made = data.shards.prepare([paths], tmp_path / "out", **ASKED)
    for shard, documents in ((made.sources[0], train), (made.held_out, held_out)):
        in_order = sorted(documents, key=lambda document: int(document.name.split(":")[1]))
        found = [made.tokenizer.decode(part) for part in np.split(shard.tokens, shard.starts[1:])]
        assert found == [document.text for document in in_order]
    assert made.tokenizer.vocabulary_size == tokenizer.vocabulary_size


def test_what_one_source_learns_another_does_not_hold_out(tmp_path):
    texts = [f"text {i}\n" for i in range(200)]
    groups = [rows(tmp_path / "a.jsonl", texts), rows(tmp_path / "b.jsonl", texts[::-1])]
    made = data.shards.prepare(groups, tmp_path / "out", tokenizer="bytes", fraction=0.3)
    held_out, *learned = (
        {made.tokenizer.decode(part) for part in np.split(shard.tokens, shard.starts[1:])}
        for shard in (made.held_out, *made.sources)
    )
    assert len(learned) == 2
    assert held_out
    assert not held_out & set().union(*learned)
    few = [rows(tmp_path / f"{name}.jsonl", order) for name, order in (("a", texts[:9]), ("b", texts[8::-1]))]
    with pytest.raises(data.DataError, match="training text of another --data"):
        data.shards.prepare(few, tmp_path / "none", tokenizer="bytes", fraction=0.15)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "text").mkdir()
    paths = many(tmp_path / "text")
    data.shards.prepare([paths], tmp_path / "whole", **ASKED)
    return paths, tmp_path / "whole"


class StopHereError(Exception):
    """Somebody pulls the plug."""


def stopping(at):
    calls = iter(range(10**9))

    def told(what, done, total):
        if next(calls) == at:
            raise StopHereError

    return told


def test_whenever_it_is_stopped_it_goes_on_to_the_same_files(tmp_path, whole, full):
    paths, expected = whole
    calls = []
    data.shards.prepare([paths], tmp_path / "counted", **ASKED, told=lambda *each: calls.append(each))
    moments = [i for i, (what, *_) in enumerate(calls) if what != "reading"]
    assert len(moments) > 10
    assert calls[moments[-2]][1:] == (calls[moments[-2]][2],) * 2, "in the end all characters are done"
    for at in [len(calls) // 4, *moments[:: 1 if full else 3]]:
        out = tmp_path / f"stopped{at}"
        with pytest.raises(StopHereError):
            data.shards.prepare([paths], out, **ASKED, told=stopping(at))
        if at in moments:
            with pytest.raises(data.DataError, match="not prepared to its end"):
                data.shards.is_prepared(out)
            with open(out / "train-0.npy", "ab") as file:  # written, and not counted yet
                file.write(b"more")
        data.shards.prepare([paths], out, **ASKED)
        assert content(out) == content(expected)


def test_what_is_there_is_not_made_again(whole):
    paths, out = whole
    before = content(out), (out / "train-0.npy").stat().st_mtime_ns
    data.shards.prepare([paths], out, **ASKED, told=stopping(0))
    assert (content(out), (out / "train-0.npy").stat().st_mtime_ns) == before


def test_processes_make_the_same_files(tmp_path, whole):
    paths, expected = whole
    data.shards.prepare([paths], tmp_path / "by two", **ASKED, workers=2)
    assert content(tmp_path / "by two") == content(expected)


def test_a_process_that_is_killed_is_an_error_and_not_the_end(tmp_path, whole, monkeypatch):
    paths, expected = whole
    started = []

    class Popen(_encode.subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(_encode.subprocess, "Popen", Popen)

    def told(what, done, total):
        if what == "tokenizing":
            for process in started:
                process.kill()

    with pytest.raises(data.shards.EncoderError, match="exit code -9"):
        data.shards.prepare([paths], tmp_path / "out", **ASKED, workers=2, told=told)
    assert all(process.returncode is not None for process in started)
    data.shards.prepare([paths], tmp_path / "out", **ASKED)
    assert content(tmp_path / "out") == content(expected)


def test_text_that_changes_meanwhile_is_named(tmp_path, whole):
    paths, _ = whole

    def told(what, done, total):
        if what == "learning a tokenizer":
            (tmp_path / "text" / "1" / "7.txt").write_text("another text\n" * 20)

    with pytest.raises(data.DataError, match=r"7\.txt changed while it was read"):
        data.shards.prepare([paths], tmp_path / "out", **ASKED, told=told)
    with pytest.raises(data.DataError, match="the beginning of something else; remove it"):
        data.shards.prepare([paths], tmp_path / "out", **ASKED)


def edit(**changes):
    def change(folder):
        file = folder / "spectrain-shards.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def flip(name, at):
    def change(folder):
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return change


def cut(name, by):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def lengthen(folder):
    with open(folder / "held-out.npy", "ab") as file:
        file.write(b"xx")


def other_tokenizer(folder):
    data.train_tokenizer("bytes", []).save(folder / "tokenizer.json")


DAMAGED = {
    "truncated": (cut("train-0.npy", 1), r"train-0\.npy is truncated: it has [\d,]+ bytes, and [\d,]+ were written"),
    "truncated to nothing": (lambda f: (f / "held-out.npy").write_bytes(b""), r"held-out\.npy is truncated"),
    "index truncated": (cut("train-0.starts.npy", 8), r"train-0\.starts\.npy is truncated"),
    "longer": (
        lambda f: (f / "held-out.npy").write_bytes((f / "held-out.npy").read_bytes() + b"xx"),
        r"held-out\.npy is longer than it was",
    ),
    "missing": (lambda f: (f / "held-out.npy").unlink(), r"no whole folder of shards: .*held-out\.npy"),
    "a token altered": (flip("train-0.npy", -3), r"train-0\.npy was altered"),
    "its header altered": (flip("train-0.npy", 30), r"train-0\.npy was altered"),
    "another tokenizer": (other_tokenizer, r"tokenizer\.json is another tokenizer than the one that made these shards"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no whole folder of shards: .*tokenizer\.json"),
    "no JSON": (lambda f: (f / "spectrain-shards.json").write_text("{"), "no whole folder of shards: .* is not JSON"),
    "a later format": (edit(format="spectrain shards, 2"), "is of format 'spectrain shards, 2'"),
    "shards that are none": (edit(shards=[{"name": "x"}]), "an object with bytes, name, starts, tokens is needed"),
    "no shards": (edit(shards={}), "shards must be a list"),
    "files elsewhere": (
        edit(shards=[{"name": "x", "tokens": {"file": "../x", "size": 200}, "starts": {}, "bytes": 1}]),
        r"\.\./x is not in it",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_shards_are_named(whole, case):
    _, folder = whole
    change, words = DAMAGED[case]
    change(folder)
    with pytest.raises(data.DataError, match=words):
        data.shards.open_prepared(folder)


def test_a_folder_that_is_not_for_it_is_refused(tmp_path, whole):
    paths, folder = whole
    with pytest.raises(data.DataError, match="another text, or one prepared otherwise"):
        data.shards.prepare([paths], folder, **{**ASKED, "seed": 4})
    with pytest.raises(data.DataError, match="is there and not empty"):
        data.shards.prepare([paths], tmp_path, **ASKED)
    for wrong, words in (({"fraction": 0.0}, "between 0 and 1"), ({"vocabulary": 200}, "at least 257")):
        with pytest.raises(ValueError, match=words):
            data.shards.prepare([paths], tmp_path / "new", **{**ASKED, **wrong})
    assert not (tmp_path / "new").exists()


def test_streams_give_the_batches_of_memory(tmp_path):
    (tmp_path / "text").mkdir()
    groups = [many(tmp_path / "text"), rows(tmp_path / "b.jsonl", [lines(5, i) for i in range(9)])]
    made = data.shards.prepare(groups, tmp_path / "out", **ASKED)
    sizes, end = {"block": 8, "batch": 4}, made.tokenizer.end_of_text
    copied = [np.array(shard.tokens) for shard in made.sources]
    on_disk = [data.TokenStream(shard.tokens, seed=k, **sizes) for k, shard in enumerate(made.sources)]
    in_memory = [data.TokenStream(tokens, seed=k, **sizes) for k, tokens in enumerate(copied)]
    packed_on_disk = [
        data.PackedStream(shard.tokens, end_of_text=end, seed=1, starts=shard.starts, **sizes) for shard in made.sources
    ]
    packed_in_memory = [data.PackedStream(tokens, end_of_text=end, seed=1, **sizes) for tokens in copied]
    pairs = [*zip(on_disk, in_memory, strict=True), *zip(packed_on_disk, packed_in_memory, strict=True)]
    for kind in ((on_disk, in_memory), (packed_on_disk, packed_in_memory)):
        pairs.append(tuple(data.Mixture(streams, weights=(3, 1), seed=2) for streams in kind))
    for ours, theirs in pairs:
        for t in (0, 1, 77, 10**6):
            for a, b in zip(ours.batch(t), theirs.batch(t), strict=True):
                assert torch.equal(a, b)


@given(st.lists(st.text(alphabet="ab \n\té", max_size=9), max_size=12), st.integers(1, 6))
def test_pieces_do_not_depend_on_the_parts(parts, size):
    assert list(pieces(iter(parts), size=size)) == list(pieces("".join(parts), size=size))


@given(raw=st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_parts_are_the_text_or_name_the_same_byte(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("parts") / "file"
    path.write_bytes(raw)
    try:
        expected = raw.decode()
    except UnicodeDecodeError as error:
        expected = f"byte 0x{raw[error.start]:02x} at offset {error.start} (line {raw.count(10, 0, error.start) + 1})"
    try:
        found = "".join(read_parts(path))
    except data.DataError as error:
        found = next(words for words in ("is empty", "is a binary", "is UTF-16", expected) if words in str(error))
        expected = found
    assert found == expected.removeprefix("\ufeff")


def test_a_bounded_validation_is_spread_and_scores_blocks_as_the_whole_does():
    tokens = np.arange(1, 1001)
    whole = torch.cat([torch.stack(pair, 1) for pair in data.validation_batches(tokens, block=8, batch=4)])
    some = torch.cat([torch.stack(pair, 1) for pair in data.validation_batches(tokens, block=8, batch=4, most=83)])
    assert len(some) == 10, "83 // 8"
    numbers = [int((whole == row).all(-1).all(-1).nonzero()[0, 0]) for row in some]
    assert numbers[0] == 0
    assert set(np.diff(numbers)) <= {12, 13}, "125 blocks, of which every twelfth or thirteenth is taken"
    for most in (1000, 1001, None):
        same = functools.partial(data.validation_batches, tokens, block=8, batch=4)
        assert all(torch.equal(a[1], b[1]) for a, b in zip(same(most=most), same(), strict=True))
    (pair,) = data.validation_batches(tokens, block=8, batch=4, most=3)
    assert pair[0].tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="most must be at least 1"):
        data.validation_batches(tokens, block=8, batch=4, most=0)
