"""`make bench-check`: which recorded ratio stands beside which, and what happens to a program that fails."""

import ast
import json
import sys

import pytest

from benchmarks import _compare, _program, _record, check
from benchmarks._record import Found

ASKED = {"shapes": ((8, 8), (8, 16)), "stored": 64, "rounds": 7, "peer": None, "memory": True, "table": {"a": (1, 2)}}
RECORD = {
    "machine": {"cpu": "another processor", "threads": 1},
    "settings": {
        "shapes": [[8, 8], [8, 16]], "stored": 64, "rounds": 15, "peer": "kepler", "memory": True,
        "table": {"a": [1, 2], "b": [3, 4]}, "runs": "speed",
    },
    "figures": {"8 x 8: ours / theirs": 0.5, "8 x 16: ours / theirs": 2.0, "ours / theirs": 1.25, "worst": 2.0},
}  # fmt: skip


@pytest.fixture
def records(tmp_path, monkeypatch):
    """An empty folder of records, and one way to write one."""
    monkeypatch.setattr(_record, "RECORDS", tmp_path)
    return lambda record, name="2026-03-04_speed": (tmp_path / f"{name}.json").write_text(json.dumps(record))


def cells(ratios, *, settings=ASKED, free=("rounds",), name="speed"):
    """The first line of a page, and the columns of every ratio by its name."""
    first, *lines = _compare.page(name, ratios, settings, free).splitlines()
    found = {case: line.removeprefix(case).split() for case in ratios for line in lines if line.startswith(f"{case} ")}
    return first, found


def test_a_ratio_stands_beside_the_newest_recorded_one_of_its_case(records):
    records(RECORD | {"figures": {"8 x 8: ours / theirs": 9.0}}, "2026-01-02_speed")
    records(RECORD | {"figures": {"8 x 8: ours / theirs": 8.0}}, "2026-12-31_speed_of_light")
    records(RECORD)
    first, found = cells({"8 x 16: ours / theirs": 1.9, "8 x 8: ours / theirs": 0.55})
    assert first == "speed: recorded 2026-03-04 on another processor"
    assert found == {"8 x 16: ours / theirs": ["1.9", "2", "0.95"], "8 x 8: ours / theirs": ["0.55", "0.5", "1.10"]}


@pytest.mark.parametrize("case", ["8 x 8: theirs / ours", "16 x 8: ours / theirs", "8 x 8", "8 x 8: ours / theirs "])
def test_a_ratio_of_another_case_has_nothing_beside_it(records, case):
    """Another quotient, another shape, part of a name: the mean of all, which is there, never stands in."""
    records(RECORD)
    assert cells({case: 1.2})[1][case] == ["1.2", "-", "-"]


WRONG = {
    "another length": {"stored": 32},
    "a shape that was not measured": {"shapes": ((8, 8), (16, 16))},
    "a table whose row is another": {"table": {"a": (1, 3)}},
    "a table with a row more": {"table": {"c": (1, 2)}},
    "a peer of another kind": {"peer": "other"},
    "a list for a number": {"stored": (64,)},
}


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_compared_with_a_record_of_other_settings(records, name):
    records(RECORD)
    first, found = cells({"8 x 8: ours / theirs": 0.5}, settings=ASKED | WRONG[name])
    (key,) = WRONG[name]
    assert first == f"speed: nothing to compare: recorded 2026-03-04 with {key} {RECORD['settings'][key]}"
    assert found["8 x 8: ours / theirs"] == ["0.5", "-", "-"]


def test_what_a_check_sets_by_itself_is_free_only_where_it_is_one_value(records):
    records(RECORD)
    other = ASKED | {"stored": 32, "shapes": ((9, 9),)}
    assert "stored" not in cells({}, settings=other, free=("stored", "shapes"))[0]
    assert "shapes [[8, 8], [8, 16]]" in cells({}, settings=other, free=("stored", "shapes"))[0]


RIGHT = {
    "fewer shapes": {"shapes": ((8, 16),)},
    "no shapes": {"shapes": ()},
    "fewer rounds": {"rounds": 1},
    "without memory": {"memory": False},
    "a setting that is new": {"warm": 3},
    "its own folder": {"runs": "scratch"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_part_of_what_was_recorded_is_compared(records, name):
    records(RECORD)
    first, found = cells({"8 x 8: ours / theirs": 0.5}, settings=ASKED | RIGHT[name])
    assert first == "speed: recorded 2026-03-04 on another processor"
    assert found["8 x 8: ours / theirs"] == ["0.5", "0.5", "1.00"]


@pytest.mark.parametrize(("here", "marked"), [(0.5, 0), (0.66, 0), (0.67, 1), (0.38, 0), (0.37, 1), (50.0, 1)])
def test_what_differs_by_more_than_a_third_is_marked(records, here, marked):
    records(RECORD)
    assert _compare.page("speed", {"8 x 8: ours / theirs": here}, ASKED, ("rounds",)).count("<--") == marked


def test_a_page_says_what_its_record_lacks(records):
    assert cells({"a": 1.0}, name="slow")[0] == "slow: no record"
    records({"machine": "x86_64", "figures": {}}, "2026-01-02_old")
    assert cells({}, name="old")[0] == "old: recorded 2026-01-02 on a machine without a name, settings not written down"
    here = _record.machine()
    records({"machine": here | {"threads": here["threads"] + 1}, "settings": {}}, "2026-01-02_wide")
    assert cells({}, name="wide")[0] == f"wide: recorded 2026-01-02, threads {here['threads'] + 1}"
    records({"machine": here, "settings": {}}, "2026-01-02_same")
    assert _compare.page("same", {}, {}, ()).splitlines() == ["same: recorded 2026-01-02", "no ratio"]


# --check of one program.


def measure(*, n: int = 7, rounds: int = 9, peer: str | None = None):
    """A measure that prints."""
    print("what nobody asked for")
    ratios = {f"n {n}: ours over {peer}": n / 4}
    yield Found(rows=[], body="", ratios={})
    yield Found(rows=[], body="", figures={"worst": 8.0}, ratios=ratios)


def ran(monkeypatch, *flags, **options):
    monkeypatch.setattr(sys, "argv", ["speed", "--check", *map(str, flags)])
    _program.main("speed", "{nothing}", measure, smoke={}, **options)


def test_a_check_prints_its_ratios_alone_and_records_nothing(records, monkeypatch, tmp_path, capsys):
    records({"machine": _record.machine(), "settings": {"n": 7, "rounds": 9}, "figures": {"n 7: ours over None": 3.5}})
    ran(monkeypatch, check={"rounds": 1})
    first, _, line = capsys.readouterr().out.splitlines()
    assert first == "speed: recorded 2026-03-04"
    assert line.split() == ["n", "7:", "ours", "over", "None", "1.75", "3.5", "0.50", "<--"]
    ran(monkeypatch, "--n", 8, check={"rounds": 1})  # a flag makes it another case
    assert "nothing to compare: recorded 2026-03-04 with n 7" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1


def test_a_check_says_why_there_is_none(records, monkeypatch, capsys):
    ran(monkeypatch)
    assert capsys.readouterr().out == "speed: nothing to check, it is not about speed\n"
    ran(monkeypatch, check={"rounds": 1}, needs="peer")
    assert capsys.readouterr().out == "speed: no ratio without --peer\n"
    ran(monkeypatch, "--peer", "x", check={"rounds": 1}, needs="peer")
    assert "n 7: ours over x" in capsys.readouterr().out


# All of them.

PROGRAM = """
from benchmarks._program import main
from benchmarks._record import Found

def measure(*, rounds: int = 9):
    {}
    return Found(rows=[], body="", ratios={{"a over b": 4.0}})

if __name__ == "__main__":
    main(
        "{}",
        "it is {{so}}",
        measure,
        smoke={{}},
        check={{"rounds": 1}},
    )
"""


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def folder(tmp_path, records):
    """Programs of three layers, three of which cannot be run, and one that is not about speed."""
    records({"machine": _record.machine(), "settings": {}, "figures": {"a over b": 1.0}}, "2026-01-02_second")
    texts = {"b/second": "", "a/first": "1 / 0", "b/third": "raise SystemExit('no')", "c/killed": KILLED, "c/last": ""}
    for name, line in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(line, name.partition("/")[2]))
    for name in ("c/other", "c/_part"):
        (tmp_path / f"{name}.py").write_text(PROGRAM.format("", name).replace("        check=", "        #"))
    return tmp_path


def test_all_run_in_order_and_those_that_fail_are_named(folder, capsys):
    assert check.main(check.programs(folder)) == 1
    printed = capsys.readouterr().out
    titles = [line.rpartition(" (")[0] for line in printed.splitlines() if line.startswith("== ")]
    well = ["== second: recorded 2026-01-02", "== last: no record"]
    assert titles == ["== first FAILED", well[0], "== third FAILED", "== killed FAILED", well[1]]
    assert "ZeroDivisionError" in printed
    assert "SystemExit: no" in printed
    assert "exit code -9" in printed
    assert printed.splitlines()[-2].startswith("5 programs, ")
    assert printed.splitlines()[-2].endswith(" s of processor time; moved by more than a third (<--): second 1")
    assert printed.splitlines()[-1] == "failed: first, third, killed"


def test_where_all_end_well_the_exit_code_is_0(folder, capsys):
    assert check.main([folder / "c/last.py"]) == 0
    printed = capsys.readouterr().out
    assert "failed" not in printed
    assert printed.endswith("more than a third (<--): none\n")


FREE = {"rounds", "steps", "cases", "judged", "many"}  # how often, or how much of what is no ratio
NAMED = {"case"}  # stands in the names of ratios
APART = {"with_memory", "together", "profiled"}  # what else is measured, and where


@pytest.mark.parametrize("path", check.programs(), ids=lambda path: path.stem)
def test_a_check_changes_no_single_setting_that_a_ratio_depends_on(path):
    """Lists and tables are compared with the record's by themselves; single values are free, so they are few."""
    call = ast.parse(path.read_text(encoding="utf-8")).body[-1].body[0].value
    (small,) = [given.value for given in call.keywords if given.arg == "check"]
    single = {
        key.value
        for key, value in zip(small.keys, small.values, strict=True)
        if not isinstance(value, ast.Tuple | ast.Dict | ast.Subscript | ast.Name)
    }
    assert single <= FREE | NAMED | APART


def test_programs_with_a_check_are_found():
    assert len(check.programs()) > 12
    assert {"moe", "msign", "main_job"} <= {path.stem for path in check.programs()}
