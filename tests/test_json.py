"""JSON is read with suspicion: each bad file is one clear line that names it, says what is wrong and what to give."""

import json
import math
import os
import random
import string
from pathlib import Path

import pytest

from spectrain._files import read as _read
from spectrain._files.read import NOT_FINITE, parse_json, read_json, read_object, read_rows

BAD_TEXTS = {
    "nothing": ("", "not JSON: Expecting value"),
    "cut": ('{"a": [1, 2', "not JSON: Expecting"),
    "two values": ("{} {}", "not JSON: Extra data"),
    "a byte order mark": ("\ufeff{}", "byte order mark"),
    "a name twice": ('{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
    "a name twice inside": ('[{"c": {"a": 1, "a": 2}}]', "'a' stands twice"),
    "deep lists": ("[" * 100_000, "nested too deeply"),
    "deep objects": ('{"a":' * 100_000, "nested too deeply"),
    "NaN": ("[NaN]", "NaN is not a number"),
    "infinite": ('{"a": Infinity}', "Infinity is not a number"),
    "minus infinite": ("-Infinity", "-Infinity is not a number"),
    "beyond doubles": ("[1e999]", "1e999 is beyond the largest double"),
    "far below": ("-" + "9" * 400 + ".0", "beyond the largest double"),
    "too many digits": ("9" * 5000, "too long to be read"),
    "a control character": ('"a\nb"', "not JSON: Invalid control character"),
    "a comment": ("{} // none", "not JSON"),
    "single quotes": ("{'a': 1}", "not JSON"),
    "NUL": ("\0", "not JSON"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_texts_are_one_line_that_names_file_fault_and_cure(name, tmp_path):
    text, words = BAD_TEXTS[name]
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as error:
        read_object(tmp_path / "a.json", what="a run's config.json")
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'a.json'} is ")
    assert said.endswith(". Give a run's config.json.")
    assert "\n" not in said
    assert len(said) < len(str(tmp_path)) + 250


BAD_BYTES = {
    "not UTF-8": (b'{"a": "caf\xe9"}', "not UTF-8: .* at byte 10"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "half a pair": (rb'{"a": "\ud800"}', "half of a surrogate pair"),
    "half a pair in a name": (rb'{"\udc00": 1}', "half of a surrogate pair"),
    "a list": (b"[1]", "must hold a JSON object, got a list"),
    "null": (b"null", "must hold a JSON object, got null"),
    "a truth value": (b"true", "must hold a JSON object, got true or false"),
    "a number": (b"3", "must hold a JSON object, got a number"),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_files(name, tmp_path):
    content, words = BAD_BYTES[name]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_object(tmp_path / "a.json", what="an index")
    assert str(tmp_path / "a.json") in str(error.value)
    assert str(error.value).endswith("Give an index.")


@pytest.mark.parametrize("inside", ["1", r'"\u00e9"', r'"\ud800"'])
def test_any_depth_is_a_value_or_a_value_error(inside, tmp_path):
    for depth in (*range(100, 1500, 100), 10_000):
        (tmp_path / "a.json").write_text("[" * depth + inside + "]" * depth)
        try:
            value = read_json(tmp_path / "a.json", what="a value")
        except ValueError as error:
            assert "nested too deeply" in str(error) or "half of a surrogate" in str(error)  # noqa: PT017
        else:
            for _ in range(depth):
                (value,) = value
            assert not isinstance(value, list)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe, not a file"):
        read_json(tmp_path / "pipe", what="an index")
    for folder, words in ((tmp_path, "is a folder, not a file"), (Path("/dev/zero"), "is a device, not a file")):
        with pytest.raises(ValueError, match=words):
            read_json(folder, what="an index")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json", what="an index")


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_read, "MOST_BYTES", 10)
    (tmp_path / "a.json").write_text("[" + "0," * 50 + "0]")
    with pytest.raises(ValueError, match="too large: 103 bytes, and at most 10"):
        read_json(tmp_path / "a.json", what="an index")
    (tmp_path / "a.json").write_text("[1, 2, 3] ")
    assert read_json(tmp_path / "a.json", what="an index") == [1, 2, 3]


def test_of_rows_the_bad_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3, "a"')
    rows = read_rows(tmp_path / "a.jsonl", what="the metrics of a run")
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3 is not JSON: .*\. Give the metrics of a run\."):
        next(rows)
    (tmp_path / "a.jsonl").write_bytes(b"3\n")
    with pytest.raises(ValueError, match="line 1 must hold a JSON object, got a number"):
        list(read_rows(tmp_path / "a.jsonl", what="the metrics of a run"))


def test_numbers_that_json_has_not_are_read_where_that_is_asked_for():
    found = parse_json("[NaN, Infinity, -Infinity, 1e999]", constants=NOT_FINITE)
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, math.inf]
    with pytest.raises(ValueError, match="NaN is not"):
        parse_json("[Infinity, NaN]", constants=("Infinity",))


def test_good_values_come_back_as_written_and_none_of_their_cuts_or_flips_is_another_error(tmp_path):
    """Texts of random values, cut anywhere and with any byte changed: a value or one ValueError, nothing else."""
    draw, file = random.Random(0), tmp_path / "a.json"

    def value(depth):
        kind = draw.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(draw.randrange(4))]
        if kind == 6:
            return {"".join(draw.choices(string.printable + "\u00e9\U0001f600", k=4)): value(depth - 1) for _ in "ab"}
        number = draw.random() * 10.0 ** draw.randrange(-300, 300)
        return (None, number, draw.getrandbits(90), "\U0001f600\0", True)[kind]

    for _ in range(60):
        wanted = value(4)
        text = json.dumps(wanted, ensure_ascii=draw.random() < 0.5).encode()
        file.write_bytes(text)
        assert read_json(file, what="a value") == wanted
        for _ in range(20):
            spoiled = bytearray(text)
            spoiled[draw.randrange(len(text))] = draw.randrange(256)
            file.write_bytes(bytes(spoiled[: draw.randrange(len(text) + 1)]) if draw.random() < 0.5 else bytes(spoiled))
            try:
                read_json(file, what="a value")
            except ValueError as error:
                assert str(error).startswith(f"{file} is ")  # noqa: PT017
