"""Files of many texts: the same documents from every form, and errors that name the line and the field."""

import gzip
import json
import os

import pytest

from spectrain import data

ROWS = [{"text": "one\nline"}, {"text": ""}, {"text": "zwei ü"}, {"text": "three", "id": 3}]
FOUND = [("one\nline", 1), ("zwei ü", 3), ("three", 4)]


def write_lines(path, rows=ROWS):
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_parquet(path, rows=ROWS):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the package pyarrow: pip install spectrain[parquet]")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([{"text": row["text"]} for row in rows]), path)
    return path


def hugging_face():
    return pytest.importorskip("datasets", reason="needs the package datasets: pip install spectrain[parquet]")


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("way", ["file", "folder", "glob"])
def test_a_document_a_row(tmp_path, name, way):
    path = (write_parquet if name.endswith("parquet") else write_lines)(tmp_path / name)
    where = {"file": path, "folder": tmp_path, "glob": tmp_path / "*.*"}[way]
    found = data.read_documents([where])
    assert found == [data.text.Document(name=f"{name}:{number}", text=text) for text, number in FOUND]
    assert list(data.text.iterate_documents([where])) == found


def test_the_field_can_be_named(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"body": "x", "text": "y"}])
    assert [d.text for d in data.read_documents([path], text_field="body")] == ["x"]


def test_blank_lines_are_no_rows_and_numbers_are_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": "x"}\n\n{"text": "y"}')
    assert [d.name for d in data.read_documents([path])] == ["a.jsonl:2", "a.jsonl:4"]


@pytest.mark.parametrize("kind", ["map", "streamed", "saved"])
def test_datasets_of_hugging_face(tmp_path, kind):
    made = hugging_face().Dataset.from_list([{"text": row["text"]} for row in ROWS])
    if kind == "saved":
        made.save_to_disk(tmp_path / "kept")
    given = {"map": made, "streamed": made.to_iterable_dataset(), "saved": str(tmp_path / "kept")}[kind]
    found = data.read_documents([given])
    assert [d.text for d in found] == [text for text, _ in FOUND]
    assert [d.name.rpartition(":")[2] for d in found] == ["1", "3", "4"]


def test_two_datasets_have_different_names_that_do_not_change():
    one, other = (hugging_face().Dataset.from_list([{"text": t}]) for t in "ab")
    names = [d.name for d in data.read_documents([one, other])]
    assert names == [d.name for d in data.read_documents([one, other])]
    assert len(set(names)) == 2


BAD_LINES = {
    "not json": ('{"text": "x"}\n{"text"', r"a\.jsonl, line 2 is not JSON"),
    "a list": ('["x"]', "line 1 holds a list"),
    "missing": ('{"txt": "x", "id": 1}', r"line 1: 'text' must be a string, got only 'txt', 'id'; name another with"),
    "null": ('{"text": null}', "line 1: 'text' must be a string, got None"),
    "number": ('{"text": 5}', "line 1: 'text' must be a string, got 5"),
    "nothing": ("", "holds no text"),
    "empty texts": ('{"text": ""}\n', "holds no text"),
    "empty row": ("{}", "got only nothing"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines_are_named(tmp_path, case, caplog):
    content, words = BAD_LINES[case]
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(data.DataError, match=words):
        data.read_documents([tmp_path / "a.jsonl"])
    (tmp_path / "good.txt").write_text("good")
    assert "good.txt" in [d.name for d in data.read_documents([tmp_path])]
    assert "skipped 1 " in caplog.text


def test_more_bad_files(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    with pytest.raises(data.DataError, match="line 1 is not UTF-8"):
        data.read_documents([tmp_path / "a.jsonl"])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:600])
    with pytest.raises(data.DataError, match="not a whole gzip file"):
        data.read_documents([tmp_path / "b.jsonl.gz"])
    with pytest.raises(TypeError, match="Hugging Face datasets, got int"):
        data.read_documents([5])


def test_bad_parquet(tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    with pytest.raises(data.DataError, match=r"has no column 'body' but 'text'"):
        data.read_documents([path], text_field="body")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(data.DataError, match="is not a Parquet file"):
        data.read_documents([tmp_path / "b.parquet"])


def test_bad_datasets():
    made = hugging_face().DatasetDict({"train": hugging_face().Dataset.from_list(ROWS)})
    with pytest.raises(data.DataError, match=r"has the splits train; give one of them: dataset\['train'\]"):
        data.read_documents([made])
    with pytest.raises(data.DataError, match=r"no column 'body' but text;"):
        data.read_documents([made["train"]], text_field="body")


def test_a_missing_package_says_which(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(data.DataError, match=r"package pyarrow, which is not installed: pip install pyarrow"):
        data.read_documents([tmp_path / "a.parquet"])
