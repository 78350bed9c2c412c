"""Files as somebody who means harm would leave them: each ends in an error with its name, none in a hang."""

import faulthandler
import gzip
import json
import os
import struct
import threading
import zlib

import pytest

from spectrain import data
from spectrain.data._text import open as _open

FIFO = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


@pytest.fixture(autouse=True)
def no_hang():
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def nested(depth):
    return b'{"text": "x", "more": ' + b"[" * depth + b"]" * depth + b"}"


def bomb(size):
    """``size`` bytes of one letter, gzipped: about a thousandth of it."""
    pack = zlib.compressobj(9, wbits=31)
    return b"".join(pack.compress(b"a" * (1 << 20)) for _ in range(size >> 20)) + pack.flush()


@pytest.fixture(scope="module")
def small_bomb():
    return bomb(1 << 27)


LINES = {
    "deep": (nested(200_000), "line 2 is nested too deeply"),
    "half a pair": (rb'{"text": "ab\ud800c"}', r"line 2: 'text' holds '\\ud800' at character 2, half of a surrogate"),
    "UTF-16 in a line": ('{"text": "x"}'.encode("utf-16-le"), "line 2 is not JSON"),
    "bad byte": (b'{"text": "\xe9"}', "line 2 is not UTF-8: invalid continuation byte at byte 10"),
    "NUL": (b'{"text": "a\0"}', "line 2 is not JSON"),
    "a number without end": (b'{"text": ' + b"9" * 5000 + b"}", "line 2 is not JSON"),
    "a thousand fields": (json.dumps({f"f{i}": i for i in range(999)}).encode(), r"only 'f0', .*'f9', \.\.\.; name"),
    "a list for the text": (b'{"text": ' + b"[" * 500 + b"]" * 500 + b"}", r"line 2: 'text' must be a string, got \["),
    "a field of a name": (json.dumps({"k" * 9999: 1}).encode(), r"line 2: 'text' must be a string, got only 'kkk"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", LINES)
def test_a_bad_line_is_named_and_costs_a_folder_no_more_than_its_file(tmp_path, case, packed, caplog):
    line, words = LINES[case]
    content = b'{"text": "first"}\n' + line + b'\n{"text": "third"}\n'
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(data.DataError, match=words) as caught:
        data.read_documents([path])
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    (tmp_path / "good.txt").write_text("good")
    assert [d.name for d in data.read_documents([tmp_path])] == [f"{path.name}:1", "good.txt"]
    assert "skipped 1 " in caplog.text


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_a_small_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path, small_bomb, name, caplog):
    path = tmp_path / name
    path.write_bytes(small_bomb)
    assert len(small_bomb) < 1 << 18
    with pytest.raises(data.DataError, match=r"unpacks to more than 250 times its size.*bomb") as caught:
        data.read_documents([path])
    assert str(path) in str(caught.value)
    (tmp_path / "good.txt").write_text("good")
    assert [d.name for d in data.read_documents([tmp_path])] == ["good.txt"]
    assert "skipped 1 damaged" in caplog.text


def test_text_that_packs_well_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(_open, "_FREE", 1 << 16)
    text = "".join(f"{i} {'=' * 60}\n" for i in range(20_000))
    packed = gzip.compress(text.encode())
    assert 10 < len(text) / len(packed) < 100
    (tmp_path / "a.gz").write_bytes(packed[:100] + packed[100:])
    assert data.read_documents([tmp_path / "a.gz"])[0].text == text
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))  # members in a row are one file
    assert data.read_documents([tmp_path / "b.gz"])[0].text == "one\ntwo\n"


def test_archives_cut_at_every_byte_are_damaged_or_whole(tmp_path):
    packed = gzip.compress(b"some text of a few words\n" * 3)
    for length in range(1, len(packed)):
        (tmp_path / "a.gz").write_bytes(packed[:length])
        with pytest.raises(data.DataError, match="not a whole gzip file"):
            data.read_documents([tmp_path / "a.gz"])


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_devices_are_no_files(device, tmp_path):
    (tmp_path / "link").symlink_to(device)
    (tmp_path / "link.jsonl").symlink_to(device)
    for path in (device, tmp_path / "link", tmp_path / "link.jsonl"):
        with pytest.raises(data.DataError, match=f"{path} is a device, not a file"):
            data.read_documents([path])
    with pytest.raises(data.DataError, match="is a device"):
        data.load_tokenizer(device)
    with pytest.raises(data.DataError, match="is a device"):
        data.read_pairs([device])


@FIFO
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.parquet"])
def test_a_pipe_that_nobody_writes_to_keeps_no_glob_and_no_folder(tmp_path, name, caplog):
    os.mkfifo(tmp_path / name)
    (tmp_path / "b.txt").write_text("good")
    for path in (tmp_path, tmp_path / "*", tmp_path / "**" / "*", tmp_path / "**"):
        caplog.clear()
        assert [d.name for d in data.read_documents([path])] == ["b.txt"]
        assert "skipped 1 unreadable" in caplog.text
    with pytest.raises(data.DataError, match="no text"):
        data.read_documents([tmp_path / "a*"])


@FIFO
@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_that_is_named_is_read(tmp_path, packed):
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    os.mkfifo(path)
    content = gzip.compress(b"through a pipe\n") if packed else b"through a pipe\n"
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert data.read_documents([path])[0].text == "through a pipe\n"
    writer.join()


@pytest.mark.parametrize("read", [data.read_documents, data.text.iterate_documents, data.read_pairs, data.read_images])
def test_an_empty_path_is_not_the_working_folder(read, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("not meant")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(data.DataError, match="a path is empty"):
        read([""])


def test_paths_that_lead_nowhere_say_so(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("loop", "dangling"):
        with pytest.raises(data.DataError, match=r"is a link to .* where nothing is"):
            data.read_documents([tmp_path / name])
    for path in ("n" * 300, "a\0b", "~nobody-of-this-name/a", str(tmp_path / "loop" / "a"), "/dev/null/a"):
        with pytest.raises(data.DataError, match="does not exist"):
            data.read_documents([path])


@pytest.mark.parametrize("pattern", ["**", "**/*", "**/*.txt", "*/**/*.txt", "**/**/a.txt", "a/**/**"])
def test_loops_of_links_end_a_glob(tmp_path, pattern):
    """Three links back in each of two folders: 3^40 paths for who follows them."""
    for folder in ("a", "a/b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(folder)
        for i in range(3):
            (tmp_path / folder / f"loop{i}").symlink_to(tmp_path / "a")
    assert {d.text for d in data.read_documents([tmp_path / pattern])} == {"a", "a/b"}


def test_globs_find_what_the_standard_library_finds(tmp_path):
    import glob

    for name in ("a.txt", "b/c.txt", "b/d/e.txt", "b/d/f.py", ".hidden/g.txt", "b/.h.txt", "[x]/i.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for pattern in ("*", "**", "**/*", "**/*.txt", "*/*.txt", "b/**/*.txt", "b/**", "*/d/*", ".*/*", "b/.*", "[ab]*",
                    "**/d/*", "**/d/**/*", "[[]x]/*", "*/d"):  # fmt: skip
        found = _open_glob(tmp_path / pattern)
        assert found == sorted({os.path.normpath(p) for p in glob.glob(str(tmp_path / pattern), recursive=True)}), (
            pattern
        )


def _open_glob(pattern):
    from spectrain.data._text.glob import find_paths

    return sorted(map(str, find_paths(pattern)))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_text('{"text": "x"}\n' * 4)
    monkeypatch.setattr(_open, "_PIECE", 14)
    truth, count = _open._state, iter(range(9))

    def grows(file):
        if next(count) == 1:
            with open(path, "a") as more:
                more.write('{"text": "y"}\n')
        return truth(file)

    monkeypatch.setattr(_open, "_state", grows)
    with pytest.raises(data.DataError, match=f"{name} changed while it was read"):
        data.read_documents([path])


@pytest.mark.parametrize("size", [1, 13, 14, 15, 28])
def test_lines_are_the_same_whatever_piece_they_are_cut_in(tmp_path, monkeypatch, size):
    content = b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "' + b"z" * 100 + b'"}\n{"text": "three"}'
    (tmp_path / "a.jsonl").write_bytes(content)
    monkeypatch.setattr(_open, "_PIECE", size + 3)
    found = data.read_documents([tmp_path / "a.jsonl"])
    assert [(d.name, d.text) for d in found] == [("a.jsonl:1", "one"), ("a.jsonl:3", "z" * 100), ("a.jsonl:4", "three")]


def test_utf16_lines_say_what_they_are(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"text": "x"}\n'.encode("utf-16"))
    with pytest.raises(data.DataError, match=r"a\.jsonl is UTF-16; convert it"):
        data.read_documents([tmp_path / "a.jsonl"])


def test_names_that_are_not_utf8_are_names(tmp_path):
    folder = os.fsencode(tmp_path) + b"/f\xe9"
    os.mkdir(folder)
    for name in (b"caf\xe9.txt", b"b.txt"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(name[:3])
    for given in (os.fsdecode(folder), os.fsdecode(folder) + "/*.txt", os.fsdecode(folder + b"/caf\xe9.txt")):
        documents = data.read_documents([given])
        assert "caf\\xe9.txt" in {d.name for d in documents}
        json.dumps([d.name for d in documents], ensure_ascii=False).encode()
    same = [os.fsdecode(folder + b"/b.txt"), os.fsdecode(tmp_path / "b.txt")]
    (tmp_path / "b.txt").write_text("other")
    for document in data.read_documents(same):
        document.name.encode()


PAIRS = {
    "deep": (nested(200_000), "line 1 is nested too deeply"),
    "half a pair": (rb'{"query": "\udc00", "document": "x"}', "line 1: 'query' holds .* half of a surrogate pair"),
    "empty": (b'{"query": " ", "document": "x"}', "line 1: the field 'query' must be a string that is not empty"),
    "a group of lists": (b'{"query": "a", "document": "x", "group": []}', "line 1: the field 'group' must be a string"),
    "bad byte": (b'{"query": "\xff", "document": "x"}', "line 1 is not UTF-8"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_bad_pairs_are_named(tmp_path, case):
    line, words = PAIRS[case]
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    with pytest.raises(data.DataError, match=words) as caught:
        data.read_pairs([tmp_path / "a.jsonl"])
    assert "a.jsonl" in str(caught.value)


def test_pairs_with_a_byte_order_mark_and_without_a_group(tmp_path):
    rows = [{"query": f"q{i}", "document": "d", "group": group} for i, group in enumerate((None, None, 7, "g"))]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, rows)).encode())
    pairs = data.read_pairs([tmp_path / "a.jsonl"])
    assert [pair.query for pair in pairs] == ["q0", "q1", "q2", "q3"]
    assert len({pair.group for pair in pairs}) == 4


IDX = {
    "damaged": lambda good: gzip.compress(good)[:30] + b"\0" * 30,
    "a bomb": lambda good: bomb(1 << 27),
    "of 255 dimensions": lambda good: gzip.compress(struct.pack(">2xBB", 8, 255) + b"\xff" * 1020),
    "of zero pictures": lambda good: gzip.compress(struct.pack(">2xBBIII", 8, 3, 0, 8, 8)),
    "cut": lambda good: gzip.compress(good[:-1]),
}


@pytest.mark.parametrize("case", IDX)
def test_bad_pictures_are_named(tmp_path, case):
    good = struct.pack(">2xBBIII", 8, 3, 1, 8, 8) + bytes(64)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(IDX[case](good))
    count = 0 if case == "of zero pictures" else 1
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2xBBI", 8, 1, count) + bytes(count))
    with pytest.raises(data.DataError, match=str(tmp_path)):
        data.read_images([tmp_path])
