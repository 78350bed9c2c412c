"""The page of a check: its finding is the title, what fails stands first, and the page's own ids are not taken."""

import json

import pytest

from spectrain import report

SIZES = {
    "kind": "spectrum",
    "ok": False,
    "suspect": {"kind": "update", "name": "b.weight", "exponent": 0.98, "multiplier": "learning rate x (64 / width)"},
    "judged": [
        {"kind": "weight", "name": "<a>", "ok": True, "exponent": 0.0, "spread": 1.0, "values": {"64": 1, "128": 1}},
        {"kind": "update", "name": "b.weight", "ok": False, "exponent": 0.98, "spread": 1.97,
         "values": {"64": 1.0, "128": 1.97}, "multiplier": "learning rate x (64 / width)"},
        {"kind": "update", "name": "c", "ok": False, "exponent": None, "spread": None, "values": {"64": 1}},
    ],
}  # fmt: skip
SWEEP = {
    "kind": "lr-transfer",
    "moved": 4.0,
    "rows": [
        {"width": w, "lr": lr, "seed": 0, "loss": lr * w if lr < 1 else None} for w in (64, 128) for lr in (0.1, 1)
    ],
}


def page(folder, found):
    (folder / "check.json").write_text(json.dumps(found))
    return report.write([folder], out=folder).read_text(encoding="utf-8")


def test_a_check_of_sizes(tmp_path):
    text = page(tmp_path, SIZES)
    assert "<h1>b.weight: the update goes as width^0.98. Begin there: learning rate x (64 / width).</h1>" in text
    assert text.index("<option") if "<option" in text else True
    assert '"title":"Norm of an update over sqrt(out / in): 2 of 2 move"' in text
    assert "<a>" not in text.replace("&lt;a&gt;", "")
    assert text.count('id="check"') == 1  # the page's own line about its figures


def test_a_sweep(tmp_path):
    text = page(tmp_path, SWEEP)
    assert "moves by a factor of 4" in text
    assert "width 128" in text


@pytest.mark.parametrize("found", [{}, {"judged": 3}, {"kind": "lr-transfer"}, {"judged": [{"kind": "weight"}]}])
def test_damaged_files_give_a_page(tmp_path, found):
    assert "<h1>" in page(tmp_path, found)
