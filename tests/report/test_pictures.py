"""Drawings inside the page: the PNG holds the pixels that were recorded, damage is left out."""

import base64
import json
import struct
import zlib

import numpy as np
import pytest

from spectrain import report
from spectrain.report._sections.pictures import sheet


def row(pixels, **changes):
    pixels = np.asarray(pixels, np.uint8)
    packed = base64.b64encode(pixels.tobytes()).decode()
    return {
        "kind": "pictures",
        "step": 3,
        "steps": 1,
        "columns": 2,
        "shape": list(pixels.shape),
        "pixels": packed,
    } | changes


def decoded(url):
    """The pixels of a PNG without filters, by the words of the standard."""
    raw = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(raw):
        (size,), kind = struct.unpack(">I", raw[at : at + 4]), raw[at + 4 : at + 8]
        body = raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert depth == 8
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_holds_the_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 250, (3, channels, 4, 5), dtype=np.uint8)
    found = decoded(sheet(row(pixels)))
    assert found.shape == (10, 12, channels)
    for i, (top, left) in enumerate([(0, 0), (0, 6), (5, 0)]):
        np.testing.assert_array_equal(found[top : top + 4, left : left + 5], pixels[i].transpose(1, 2, 0))
    assert (found[5:9, 6:11] == 255).all()  # no fourth picture


DAMAGED = [{"pixels": "not base64!"}, {"shape": [3, 1, 4]}, {"shape": [9, 1, 4, 5]}, {"shape": None}, {"pixels": None},
           {"columns": -2}, {"shape": [3, 2, 4, 5]}]  # fmt: skip


@pytest.mark.parametrize("changes", DAMAGED, ids=str)
def test_a_damaged_row_is_left_out(changes):
    assert sheet(row(np.zeros((3, 1, 4, 5))) | changes) is None


def test_the_page_of_a_drawing_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    rows = [
        {"kind": "step", "step": 1, "pictures": 128, "loss": 1.0, "seconds": 1.0, "step_seconds": 0.5,
         "pictures_per_second": 256.0},
        {"kind": "eval", "step": 0, "pictures": 0, "loss": 1.0, "one_step_frechet": 600.0, "one_step_accuracy": 0.1},
        {"kind": "eval", "step": 1, "pictures": 128, "loss": 0.9, "one_step_frechet": 20.5, "one_step_accuracy": 0.91,
         "many_step_frechet": 18.0},
        row(np.zeros((3, 1, 4, 4))),
        row(np.ones((3, 1, 4, 4)), steps=32),
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (run / "config.json").write_text('{"job": "draw", "optimizer": "muon", "many_steps": 32}', encoding="utf-8")
    page = report.write([run], out=run).read_text(encoding="utf-8")
    assert "<h1>Frechet distance in one step: 20.5 after 128 pictures</h1>" in page
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "after step 3, drawn in one step" in page
    assert "after step 3, drawn in 32 steps" in page
    assert "samples.txt is missing" not in page
    assert "training pictures per second" in page
