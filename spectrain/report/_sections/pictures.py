"""Sheets of drawings over training: in one step beside many, as PNG inside the page."""

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence

from spectrain.report._drawing.html import Section, details, paragraph, tag, text
from spectrain.report._drawing.series import front
from spectrain.report._reading.files import Row
from spectrain.report._reading.run import Run

_MOST_BYTES = 1 << 24


def pictures(runs: Sequence[Run]) -> Section | None:
    """The section on drawings."""
    shown = [run for run in front(runs) if run.pictures]
    if not shown:
        return None
    parts = []
    for run in shown:
        content = "".join(_moment(rows) for rows in _moments(run.pictures)[-4:])
        parts.append(content if len(shown) == 1 else details(run.name, content))
    words = paragraph("Each sheet starts from the same noise; every row asks for the classes in order.")
    return Section("pictures", "Drawings", [words, *parts])


def _moments(rows: Sequence[Row]) -> list[list[Row]]:
    steps = sorted({row["step"] for row in rows})
    return [[row for row in rows if row["step"] == step] for step in steps]


def _moment(rows: Sequence[Row]) -> str:
    drawn = [(row, sheet(row)) for row in sorted(rows, key=lambda row: str(row.get("steps")).zfill(9))]
    figures = "".join(
        tag(
            "figure",
            tag("figcaption", text(_words(row))) + f'<img src="{found}" alt="{text(_words(row))}">',
            of="sheet",
        )
        for row, found in drawn
        if found
    )
    return f'<div class="row">{figures}</div>'


def _words(row: Row) -> str:
    steps = row.get("steps")
    return f"after step {row['step']}, drawn in {'one step' if steps == 1 else f'{steps} steps'}"


def sheet(row: Row) -> str | None:
    """A row's pictures side by side as a data URL of a PNG; None where the row is damaged.

    >>> row = {"shape": [1, 1, 2, 2], "columns": 1, "pixels": base64.b64encode(bytes(4)).decode()}
    >>> sheet(row)[:30], sheet({**row, "shape": [2, 1, 2, 2]})
    ('data:image/png;base64,iVBORw0K', None)
    """
    try:
        raw = base64.b64decode(row["pixels"], validate=True)
        count, channels, height, width = (int(n) for n in row["shape"])
        columns = int(row.get("columns") or 1)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    sizes = (count, channels, height, width, columns)
    if (
        min(sizes) < 1
        or channels not in (1, 3)
        or len(raw) != count * channels * height * width
        or len(raw) > _MOST_BYTES
    ):
        return None
    rows = -(-count // columns)
    canvas = [bytearray(b"\xff" * (channels * columns * (width + 1))) for _ in range(rows * (height + 1))]
    plane = height * width
    for i in range(count):
        top, left = divmod(i, columns)
        for y in range(height):
            line = canvas[top * (height + 1) + y]
            for c in range(channels):
                start = (i * channels + c) * plane + y * width
                at = channels * left * (width + 1) + c
                line[at : at + channels * width : channels] = raw[start : start + width]
    return "data:image/png;base64," + base64.b64encode(_png(canvas, channels)).decode("ascii")


def _png(lines: Sequence[bytes | bytearray], channels: int) -> bytes:
    """A PNG of eight bits a channel, from its lines (https://www.w3.org/TR/png-3/)."""
    width = len(lines[0]) // channels
    head = struct.pack(">IIBBBBB", width, len(lines), 8, 2 if channels == 3 else 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(line) for line in lines), 9)
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
