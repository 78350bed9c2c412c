"""``spectrain gallery``: the list, the flags, the pictures, and messages instead of stack traces."""

import pytest

from spectrain.cli._gallery import main
from spectrain.gallery import etudes


def test_without_a_name_the_etudes_are_listed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name, first in etudes().items():
        assert name in out
        assert first in out


def test_an_etude_runs_with_flags_and_is_drawn(tmp_path, capsys):
    picture = tmp_path / "p.svg"
    assert main(["product_sum", "--N", "130", "--out", str(picture)]) == 0
    assert "(10, 13, 0)" in capsys.readouterr().out
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize("name", sorted(etudes()))
def test_every_etude_runs_as_it_is(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([name.replace("_", "-")]) == 0
    assert f"drawn: {name}.html" in capsys.readouterr().out
    assert (tmp_path / f"{name}.html").stat().st_size > 1_000_000


def test_help_names_every_flag(capsys):
    assert main(["pursuit", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--problem" in out
    assert "--ratio" in out
    assert "--out" in out
    assert main(["--help"]) == 0


BAD = {
    "a wrong name": (["keplr"], "did you mean 'kepler'"),
    "nothing like a name": (["zzz"], "no étude"),
    "a value outside the domain": (["kepler", "--e", "1.5"], r"[0, 1)"),
    "a negative number": (["product_sum", "--N", "-3"], "naturals"),
    "a flag that is not there": (["kepler", "--colour", "red"], "colour"),
    "a value that is no number": (["kepler", "--e", "x"], "--e"),
    "an ending that cannot be drawn": (["kepler", "--out", "kepler.png"], ".svg or .html"),
    "a folder that is not there": (["kepler", "--out", "no/such/folder.svg"], "no/such"),
    "a ratio of zero": (["pursuit", "--ratio", "0"], "ratio"),
    "an unknown problem": (["pursuit", "--problem", "fox"], "fox"),
}


@pytest.mark.parametrize(("argv", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_message_and_exit_code_2(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert words in printed.err + printed.out
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []
