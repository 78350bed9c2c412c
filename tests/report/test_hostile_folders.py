"""Run folders as somebody who means harm would leave them: the page is made, says what is wrong, and is UTF-8."""

import os
from pathlib import Path

import pytest

from spectrain import report

STEP = '{"kind": "step", "step": 1, "tokens": 64, "seconds": 0.1, "loss": 8.3}\n'
FILES = ["config.json", "environment.json", "metrics.jsonl", "routing.json", "polynomials.json", "samples.txt",
         "summary.json"]  # fmt: skip
HOSTILE = {
    "half a pair": rb'{"kind": "step", "step": 1, "loss": 1, "\ud800": "\udfff"}',
    "deep": b"[" * 200_000,
    "NUL": b"\0" * 100,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "markup": b'{"optimizer": "</script><script>alert(1)</script>", "data": ["<img src=x onerror=alert(1)>"]}',
    "empty": b"",
    "huge number": b'{"step": ' + b"9" * 5000 + b', "kind": "step"}',
}


def page_of(run, out):
    text = report.write([run], out=out).read_bytes().decode("utf-8")
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    return text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_page_is_made_whatever_a_file_holds(tmp_path, name, content):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(STEP)
    (run / name).write_bytes(content)
    page_of(run, tmp_path / "page.html")


@pytest.mark.parametrize("name", [b"caf\xe9", b"<script>alert(1)<!--", b"a\"b'c", b"\xf0\x9f\x98\x80"], ids=repr)
def test_a_page_is_made_whatever_a_folder_is_called(tmp_path, name):
    run = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(run)
    with open(run + b"/metrics.jsonl", "w") as file:
        file.write(STEP)
    text = page_of(Path(os.fsdecode(run)), tmp_path / "page.html")
    if name.startswith(b"caf"):
        assert "caf\ufffd" in text


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to a device"])
def test_what_is_no_file_is_said(tmp_path, kind):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(STEP)
    place = run / "config.json"
    if kind == "link to a device":
        place.symlink_to("/dev/zero")
    else:
        (place.mkdir if kind == "folder" else lambda: os.mkfifo(place))()
    assert "config.json could not be read" in page_of(run, tmp_path / "page.html")
