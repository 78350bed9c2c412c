import gzip
import logging
import os
import subprocess
import sys
import sysconfig

import pytest

from spectrain import data


@pytest.fixture
def folder(tmp_path):
    """A folder with four usable files and one of each kind that is not."""
    files = {
        "b.txt": b"second\n",
        "a.txt": b"first\r\n\xc3\xa9\n",
        "sub/c.py": b"third\n",
        "sub/d.txt.gz": gzip.compress(b"fourth\n"),
        "picture.png": b"\x89PNG\x00\x00",
        "old.txt": b"caf\xe9\n",
        "nothing.txt": b"",
        "broken.txt.gz": gzip.compress(b"fifth\n" * 1000)[:-9],
        ".hidden": b"secret\n",
        ".git/config": b"secret\n",
    }
    for name, content in files.items():
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_bytes(content)
    return tmp_path / "corpus"


def as_dict(documents):
    return {document.name: document.text for document in documents}


def test_a_folder_gives_its_text_files_sorted_and_tells_what_it_skipped(folder, caplog):
    documents = data.read_documents([folder])
    assert as_dict(documents) == {
        "a.txt": "first\r\né\n",
        "b.txt": "second\n",
        "sub/c.py": "third\n",
        "sub/d.txt.gz": "fourth\n",
    }
    assert [d.name for d in documents] == sorted(d.name for d in documents)
    assert "read 4 files, skipped 1 binary, 1 damaged, 1 empty, 2 hidden, 1 not UTF-8" in caplog.text


def test_nothing_is_told_when_nothing_is_skipped(folder, caplog):
    with caplog.at_level(logging.DEBUG, logger="spectrain.data"):
        data.read_documents([folder / "sub"])
    assert caplog.text == ""


def test_a_file_is_named_by_its_last_part(folder):
    assert as_dict(data.read_documents([str(folder / "sub/c.py")])) == {"c.py": "third\n"}


def test_gzip_and_byte_order_mark_are_removed(tmp_path):
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfone\n"))
    assert as_dict(data.read_documents([tmp_path / "t.gz"])) == {"t.gz": "one\n"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.txt", {"a.txt", "b.txt"}),
        ("**/*.py", {"sub/c.py"}),
        ("s*", {"sub/c.py", "sub/d.txt.gz"}),
        ("sub/?.py", {"c.py"}),
    ],
)
def test_globs(folder, pattern, names):
    assert set(as_dict(data.read_documents([folder / pattern]))) == names


def test_a_file_reached_twice_is_read_once(folder):
    (folder / "link.txt").symlink_to(folder / "a.txt")
    documents = data.read_documents([folder / "a.txt", folder, folder / "*.txt"])
    assert len(documents) == 4
    assert len({d.text for d in documents}) == 4


def test_equal_names_become_whole_paths(folder):
    (folder / "x").mkdir()
    (folder / "x/b.txt").write_text("other\n")
    names = [d.name for d in data.read_documents([folder / "b.txt", folder / "x"])]
    assert names == sorted([(folder / "b.txt").as_posix(), (folder / "x/b.txt").as_posix()])


def test_names_do_not_depend_on_where_the_folder_lies_or_how_it_is_written(folder, monkeypatch):
    expected = as_dict(data.read_documents([folder]))
    moved = folder.rename(folder.parent / "moved")
    assert as_dict(data.read_documents([moved])) == expected
    monkeypatch.chdir(moved)
    assert as_dict(data.read_documents(["."])) == expected


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    (tmp_path / "[draft].txt").write_text("words\n")
    assert as_dict(data.read_documents([tmp_path / "[draft].txt"])) == {"[draft].txt": "words\n"}


BAD_FILES = {
    "picture.png": ["binary", "NUL at byte 4"],
    "old.txt": ["not UTF-8", "0xe9", "offset 3", "line 1", "iconv"],
    "nothing.txt": ["is empty"],
    "broken.txt.gz": ["not a whole gzip file"],
    "aa.txt": ["does not exist", "did you mean", "a.txt"],
    "sub/deep/c.py": ["does not exist", "holds c.py, d.txt.gz"],
    "OLD.TXT": ["does not exist", "did you mean", "old.txt"],
    "*.rst": ["nothing matches", "**"],
    "*.png": ["no text", "1 binary"],
    "nothing*": ["no text", "1 empty"],
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_paths_say_what_is_wrong(folder, name):
    with pytest.raises(data.DataError) as caught:
        data.read_documents([folder / "b.txt", folder / name] if "*" not in name else [folder / name])
    for words in BAD_FILES[name]:
        assert words in str(caught.value)
    assert str(folder) in str(caught.value)


def test_more_bad_input(tmp_path):
    with pytest.raises(data.DataError, match="empty list"):
        data.read_documents([])
    with pytest.raises(data.DataError, match=r"no text.*nothing"):
        data.read_documents([tmp_path])
    (tmp_path / "utf16.txt").write_bytes("text".encode("utf-16"))
    with pytest.raises(data.DataError, match="UTF-16"):
        data.read_documents([tmp_path / "utf16.txt"])
    (tmp_path / "plain.gz").write_bytes(b"not packed")
    with pytest.raises(data.DataError, match="gzip"):
        data.read_documents([tmp_path / "plain.gz"])
    assert issubclass(data.DataError, ValueError)


def test_the_offset_of_a_bad_byte_counts_bytes_of_the_file(tmp_path):
    (tmp_path / "late.txt").write_bytes("é\nabc\n".encode() * 1000 + b"x\xffy")
    with pytest.raises(data.DataError, match=r"0xff at offset 7001 \(line 2001\)"):
        data.read_documents([tmp_path / "late.txt"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    (tmp_path / "locked.txt").write_text("words")
    (tmp_path / "locked.txt").chmod(0)
    with pytest.raises(data.DataError, match="cannot be read"):
        data.read_documents([tmp_path / "locked.txt"])


# The standard library


def test_the_standard_library_is_read_without_its_tests():
    documents = data.read_documents(None)
    names = [d.name for d in documents]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert {"os.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip"}
    assert not any("_sysconfigdata" in name for name in names)
    assert sum(len(d.text) for d in documents) > 5_000_000
    module = next(d for d in documents if d.name == "os.py")
    with open(os.__file__, encoding="utf-8", newline="") as file:
        assert module.text == file.read()


@pytest.mark.parametrize("content", ["missing", "zip"])
def test_a_python_without_source_says_what_to_do(tmp_path, monkeypatch, content):
    if content == "zip":
        (tmp_path / "python311.zip").write_bytes(b"PK\x03\x04")
    else:
        tmp_path = tmp_path / "not" / "there"
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(data.DataError, match="--data PATH") as caught:
        data.read_documents(None)
    assert str(tmp_path) in str(caught.value)


def test_a_library_laid_out_as_debian_does(tmp_path, monkeypatch):
    files = ["os.py", "json/tool.py", "test/x.py", "dist-packages/p.py", "config-3.11-x86_64-linux-gnu/y.py"]
    for name in [*files, "_sysconfigdata__x86_64-linux-gnu.py", "unittest/test/z.py", "lib2to3/tests/data/q.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n")
    (tmp_path / "empty.py").touch()
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "sitecustomize.py").symlink_to("/etc/hostname")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert [d.name for d in data.read_documents()] == ["json/tool.py", "os.py"]


def test_importing_the_layer_loads_neither_torch_nor_tokenizers():
    code = (
        "import sys; from spectrain import data; data.read_documents; print({'torch', 'tokenizers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
