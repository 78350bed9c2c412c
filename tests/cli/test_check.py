"""spectrain check: exit codes, the table, the folder, and wrong calls."""

import json

import pytest

from spectrain.cli import main
from spectrain.cli._check import table, transfer_table, verdict

SMALL = ["--widths", "32", "64", "--head-dim", "16", "--depth", "1", "--steps", "2", "--block", "16", "--seeds", "0"]


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("".join(f"{i} times {i + 1} is {i * (i + 1)}.\n" for i in range(700)), encoding="utf-8")
    return ["--data", str(file)]


def test_muon_without_width_multiplier_fails_and_with_it_passes(tmp_path, text, capsys):
    """Megatron-LM #3715: match_rms_adamw is not width-invariant by itself."""
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    call = ["check", "spectrum", *text, *SMALL, "--optimizer", "muon"]
    assert main([*call, "--parametrisation", "standard", "--out-dir", str(wrong)]) == 1
    said = capsys.readouterr().out
    assert "blocks.0.attention.query.weight" in said
    assert "FAIL: " in said
    updates = [row for row in json.loads((wrong / "check.json").read_text())["judged"] if row["kind"] == "update"]
    query = next(row for row in updates if row["name"] == "blocks.0.attention.query.weight")
    assert query["exponent"] == pytest.approx(0.5, abs=0.1)
    assert main([*call, "--out-dir", str(right)]) == 0
    assert "OK: " in capsys.readouterr().out
    assert (right / "report.html").exists()


def test_lr_transfer_prints_its_table_and_goes_on(tmp_path, text, capsys):
    out = ["--out-dir", str(tmp_path / "sweep"), "--batch-size", "2", "--rates", "1e-3", "2e-3"]
    code = main(["check", "lr-transfer", *text, *SMALL, *out])
    said = capsys.readouterr().out
    assert code in (0, 1)
    assert ("OK: " if code == 0 else "FAIL: ") + "the best learning rate moves by a factor of" in said
    assert main(["check", "lr-transfer", *text, *SMALL, *out]) == code
    assert main(["check", "lr-transfer", *text, *SMALL, *out, "--weight-decay", "0"]) == 2
    assert "another weight_decay" in capsys.readouterr().err


def test_tables():
    rows = [{"width": w, "lr": lr, "seed": 0, "loss": None if lr > 1 else w * lr} for w in (64, 128) for lr in (0.5, 2)]
    said = transfer_table({"rows": rows, "best": {64: 0.5, 128: 0.5}, "moved": 1.0, "drift": 1.25, "ok": True})
    assert "32.0000 *" in said
    assert "inf" in said
    assert "by a factor of 1 on the grid, and by 1.25 where" in said
    judged = [
        {"kind": "update", "name": "w", "exponent": 1.0, "spread": 2.0, "ok": False, "values": {64: 1.0, 128: 2.0}}
    ]
    assert "w " in table({"judged": judged})
    assert verdict({"suspect": None}).startswith("OK")


@pytest.mark.parametrize("argv", [["check"], ["check", "spectra"]])
def test_a_wrong_call_is_two(argv, capsys):
    assert main(argv) == 2
    assert "coordinates" in "".join(capsys.readouterr())
