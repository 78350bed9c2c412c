"""Every program of benchmarks/ measures and records; every sentence that cites one can be looked up."""

import ast
import json
import math
import re
import runpy
import sys
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks import _program, _record, _rounds, _suites
from benchmarks._record import Found

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(ROOT.glob("benchmarks/*/[a-z]*.py"))
PUBLISHED = {"published"}  # numbers of others, which a program has to know
FACTS = {"cpu", "threads", "python", "torch", "spectrain", "commit", "platform"}


def call_of_main(path):
    """The call that a program ends in: name, claim, and the settings of its measure."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "main"]
    measure = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "measure")
    return call.args[0].value, call.args[1].value, [setting.arg for setting in measure.args.kwonlyargs]


def numbers(value):
    """All floats in what JSON holds, but for those that are published."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from () if key in PUBLISHED else numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float) or value in ("inf", "-inf", "nan"):
        yield float(value)


def faults(record, *, name, claim, settings, source):
    """What is wrong with a record."""
    found = [] if re.fullmatch(rf"{name}(_\w+)?", record["name"]) else [f"its name is {record['name']}"]
    if not record["claim"] or set("{}") & set(record["claim"]):
        found.append("its claim is not filled in")
    if re.search(r"(?<![\w({.^+=])\d+(\.\d+)?(?![\w/^}])", re.sub(r"\{[^}]*\}", "", claim)):
        found.append("a number stands in the claim that was not measured")
    if abs((datetime.now().astimezone() - datetime.fromisoformat(record["at"])).total_seconds()) > 3600:
        found.append("it is not of now")
    found += [f"the machine has no {fact}" for fact in FACTS if not record["machine"].get(fact)]
    if sorted(record["settings"]) != sorted(settings):
        found.append(f"settings are {sorted(record['settings'])}")
    rows = record["rows"]
    if not rows or not all(isinstance(row, dict) for row in rows) or not list(numbers(rows)):
        found.append("no row has a measured number")
    found += [f"{x} is no number" for x in numbers([rows, record["figures"]]) if not math.isfinite(x)]
    if not record["figures"] and "{" in claim:
        found.append("it has no figure")
    written = {x for x in map(repr, numbers([rows, record["figures"]])) if len(x.strip("0.")) > 4 and x in source}
    return found + [f"{x} stands in the program" for x in written]


def smoke(path, out, monkeypatch):
    """The record of a smoke run, in this process: no test waits for forty interpreters."""
    monkeypatch.chdir(out)
    monkeypatch.setattr(sys, "argv", [path.name, "--smoke", "--out", str(out)])
    runpy.run_module(f"benchmarks.{path.parent.name}.{path.stem}", run_name="__main__")
    return sorted(out.glob("????-??-??_*.json"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")  # another program uses a part of it
def test_a_program_measures_and_records(path, tmp_path, monkeypatch, capsys):
    records = smoke(path, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    if not records and f"{path.stem}: skipped: " in printed:
        pytest.skip(printed.partition("skipped: ")[2].strip())
    (record,) = (json.loads(file.read_text(encoding="utf-8")) for file in records)
    name, claim, settings = call_of_main(path)
    assert name == path.stem
    assert faults(record, name=name, claim=claim, settings=settings, source=path.read_text(encoding="utf-8")) == []
    page = records[0].with_suffix(".md").read_text(encoding="utf-8")
    assert page.startswith(f"# {record['claim']}\n")
    assert page.strip() in printed
    assert not list((tmp_path / "runs").glob("*"))  # what a smoke run trains is gone


GOOD = {
    "name": "speed", "claim": "Half the time: 0.51", "at": datetime.now().astimezone().isoformat(),
    "machine": dict.fromkeys(FACTS, "x"), "settings": {"n": 3}, "figures": {"ratio": 0.5123},
    "rows": [{"case": "a", "ratio": 0.5123}],
}  # fmt: skip
WRONG = {
    "another's name": {"name": "speedy"},
    "a claim not filled in": {"claim": "Half the time: {ratio:.2f}"},
    "no claim": {"claim": ""},
    "an old one": {"at": "2026-11-24T10:00:00+00:00"},
    "no machine": {"machine": {}},
    "no settings": {"settings": {}},
    "no rows": {"rows": []},
    "rows without numbers": {"rows": [{"case": "a"}]},
    "rows that are text": {"rows": ["a 0.5"]},
    "not a number": {"rows": [{"ratio": 0.5}, {"ratio": "nan"}]},
    "infinite": {"figures": {"ratio": "inf"}},
    "no figures": {"figures": {}},
    "a result that the program knows": {"rows": [{"ratio": 0.98765}]},
}


def test_a_good_record_has_no_fault():
    asked = {"name": "speed", "claim": "Half the time: {ratio:.2f}", "settings": ["n"], "source": "x = 0.98765"}
    assert faults(GOOD, **asked) == []
    assert faults(GOOD, **asked | {"claim": "Half the time: 0.51, {ratio}"}) != []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_rejected(name):
    asked = {"name": "speed", "claim": "Half the time: {ratio:.2f}", "settings": ["n"], "source": "x = 0.98765"}
    assert faults(GOOD | WRONG[name], **asked) != []


# What main does, on a program of one line.


def measure(*, n: int = 7, sizes: tuple[int, ...] = (1, 2), runs: Path, deep: dict | None = None):
    """A measure that counts."""
    runs.mkdir(parents=True)
    return Found(
        rows=[{"n": n}],
        body=f"{sizes} {deep}",
        figures={"ratio": n / 4, "word": "so"},
        pages={"page.svg": lambda path: path.write_text("drawn")},
    )


def ran(monkeypatch, *flags, by=measure, **options):
    monkeypatch.setattr(sys, "argv", ["speed", *map(str, flags)])
    _program.main("speed", "{n} of {ratio:.2f} is {word}", by, smoke={"n": 1, "deep": {"a": 1}}, **options)


def read(folder, name="speed"):
    (file,) = folder.glob(f"*_{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def test_flags_go_before_smoke_sizes_and_those_before_defaults(monkeypatch, tmp_path):
    ran(monkeypatch, "--smoke", "--sizes", 5, 6, "--out", tmp_path / "a")
    record = read(tmp_path / "a")
    assert record["settings"]["n"] == 1
    assert record["settings"]["sizes"] == [5, 6]
    assert record["settings"]["deep"] == {"a": 1}
    assert record["claim"] == "1 of 0.25 is so"
    assert (tmp_path / "a" / "page.svg").read_text() == "drawn"
    ran(monkeypatch, "--smoke", "--n", 3, "--out", tmp_path / "b")
    assert read(tmp_path / "b")["figures"]["ratio"] == 0.75


def test_a_full_run_keeps_its_runs_and_writes_to_records_and_docs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_record, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(_record, "DOCS", tmp_path)
    ran(monkeypatch)
    assert read(tmp_path / "records")["claim"] == "7 of 1.75 is so"
    assert (tmp_path / "runs" / "speed").is_dir()
    assert (tmp_path / "page.svg").exists()


def test_a_smoke_run_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_record, "RECORDS", tmp_path / "records")
    ran(monkeypatch, "--smoke")
    assert not list(tmp_path.iterdir())


def test_a_failure_is_recorded_and_raised(monkeypatch, tmp_path):
    def breaks(*, n: int = 7):
        yield Found(rows=[{"n": n}], body="", figures={"ratio": 1.0, "word": "so"})
        raise ArithmeticError("the second case")

    with pytest.raises(ArithmeticError, match="second case"):
        ran(monkeypatch, "--out", tmp_path, by=breaks)
    assert read(tmp_path)["rows"] == [{"n": 7}]
    failed = read(tmp_path, "speed_failed")
    assert failed["failure"] == "ArithmeticError: the second case"
    assert failed["rows"] == [{"n": 7}]


def test_what_is_missing_is_said_and_nothing_recorded(monkeypatch, tmp_path, capsys):
    def misses(*, n: int = 7):
        raise _program.MissingError("no peer")

    ran(monkeypatch, "--out", tmp_path, by=misses)
    assert capsys.readouterr().out == "speed: skipped: no peer\n"
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_no_record_yet_is_said(monkeypatch, tmp_path, capsys):
    ran(monkeypatch, "--out", tmp_path, by=lambda *, n=7: iter(()))
    assert capsys.readouterr().out == "speed: nothing to record yet\n"
    assert not list(tmp_path.iterdir())


def test_ratios_are_those_within_a_round():
    """The machine gets slower by a factor of 10 each round; b takes 3, 2 and 10 times as long as a."""
    now, order = [0.0], []

    def call(name, factors):
        def run():
            now[0] += factors[order.count(name)] * 10 ** order.count(name)
            order.append(name)

        return run

    calls = {"a": call("a", (1, 1, 1)), "b": call("b", (3, 2, 10))}
    times = _rounds.alternate(calls, rounds=3, warm=0, clock=lambda: now[0])
    assert order == ["a", "b"] * 3
    assert times["a"] == pytest.approx([1, 10, 100])
    assert times["b"] == pytest.approx([3, 20, 1000])
    assert times.ratio("b", "a") == pytest.approx(3)  # that of the medians is 2, of the sums 9.2
    assert times.quartiles("b", "a") == pytest.approx((2.5, 3, 6.5))


def test_rounds_that_warm_up_do_not_count_and_back_turns_the_order():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = _rounds.alternate(calls, rounds=2, warm=1, back=True)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert [len(row) for row in times.values()] == [2, 2]


def test_suites_are_read_as_pytest_writes_them(tmp_path):
    (tmp_path / "a.xml").write_text(
        """<testsuites><testsuite><testcase classname="tests.x.test_a" name="one" time="1.5"><properties>
        <property name="cases" value="40"/></properties></testcase><testcase classname="tests.x.test_a" name="two"
        time="0"><failure/></testcase></testsuite></testsuites>"""
    )
    found = _suites.of("x", junit=[tmp_path / "a.xml"], files="")
    assert [(t.file, t.name, t.cases, t.seconds, t.outcome) for t in found] == [
        ("test_a", "one", 40, 1.5, "passed"),
        ("test_a", "two", 1, 0.0, "failed"),
    ]
    assert _suites.failures(found) == ["test_a::two"]


# Sentences that cite a program or a record.

CITED = re.compile(r"(?<![\w./-])benchmarks[/.][\w./-]*\w")
UNRECORDED = ("no record yet", "尚无记录")


def citations(text):
    """Each path under benchmarks that a text names, programs by file, with the words that follow."""
    for found in CITED.finditer(text):
        path = found[0]
        if "/" not in path:
            path = path.replace(".", "/") + ".py"
        yield path, " ".join(text[found.end() : found.end() + 200].split())


def unfounded(text, root=ROOT):
    """The citations of a text that lead nowhere: no such file, or a program that has no record and does not say so."""
    for path, after in citations(text):
        file = root / path
        measures = file.suffix == ".py" and file.parent != root / "benchmarks"  # programs lie in the folder of a layer
        if not file.exists():
            yield f"{path} is not there"
        elif measures and not recorded(file.stem, root) and not any(words in after for words in UNRECORDED):
            yield f"{path} has no record"


def recorded(name, root):
    return any(
        re.fullmatch(rf"[\d-]{{10}}_{name}(_[a-z0-9_]+)?\.json", file.name)
        for file in (root / "benchmarks/records").iterdir()
    )


TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("spectrain/**/*.py")])


def test_what_is_cited_is_there():
    found = {str(path.relative_to(ROOT)): list(unfounded(path.read_text(encoding="utf-8"))) for path in TEXTS}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert sum(len(list(citations(path.read_text(encoding="utf-8")))) for path in TEXTS) > 60


@pytest.mark.parametrize(
    "text",
    [
        "measured by `benchmarks/msign.py`",
        "`benchmarks/matfun/no_such.py` says",
        "[x](benchmarks/records/2026-01-01_msign.md)",
        "python -m benchmarks.matfun.no_such",
        "as benchmarks/matfun/never_run.py says",
    ],
)
def test_a_citation_of_nothing_is_seen(text, tmp_path):
    for file in ("benchmarks/records/2026-11-22_msign.json", "benchmarks/matfun/never_run.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert list(unfounded(text, tmp_path))
    assert not list(unfounded("benchmarks/matfun/never_run.py (no record yet)", tmp_path))


def test_there_is_one_record_of_each_and_a_program_for_it():
    stems = {path.stem for path in PROGRAMS}
    files = sorted((ROOT / "benchmarks" / "records").iterdir())
    names = [file.stem[11:] for file in files if file.suffix == ".json"]
    assert len(names) == len(set(names)), "an older record stands beside a newer one"
    assert {file.stem for file in files if file.suffix == ".md"} == {
        file.stem for file in files if file.suffix == ".json"
    }
    for name in names:
        assert any(name == stem or name.startswith(f"{stem}_") for stem in stems), name


def test_programs_have_one_way_to_ask_and_to_record():
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        assert "argparse" not in text, path
        # One keeps what it measured beside a run, one generates text, of one each rank notes its memory.
        assert "json.dump" not in text or path.stem in ("moe_balance", "large_text", "plan_error"), path
        assert text.rstrip().splitlines()[-1] == "    )", path
