"""Reading run folders: whole, cut off at any byte, damaged, missing, or no run at all."""

import json
import random

import pytest

from spectrain import report

FILES = ("config.json", "environment.json", "summary.json", "routing.json", "polynomials.json", "samples.txt")


def test_a_whole_run_is_read_without_a_note(run_folder):
    run = report.read(run_folder)
    assert run.notes == []
    assert (run.name, run.optimizer) == ("a run", "Muon")
    assert [row["step"] for row in run.steps] == list(range(1, 121))
    assert [row["step"] for row in run.evals] == list(range(20, 121, 20))
    assert len(run.spectra) == 6 * 28
    assert len(run.routing) == 34
    assert [heading.split(",")[0] for heading, _ in run.samples] == ["step 300", "step 300"]
    assert run.samples[1][1] == "import os\nimport sys"


def test_a_kill_at_any_byte_loses_at_most_one_line(make_run, tmp_path, full):
    run_folder = make_run(tmp_path / "run", steps=12, every=6)
    metrics = run_folder / "metrics.jsonl"
    whole = metrics.read_bytes()
    generator = random.Random(0)
    for cut in (generator.randrange(len(whole)) for _ in range(400 if full else 40)):
        metrics.write_bytes(whole[:cut])
        complete = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
        steps = [row for row in complete if row["kind"] == "step"]
        read = report.read(run_folder).steps
        assert read[: len(steps)] == steps
        assert len(read) <= len(steps) + 1


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_said(run_folder, name):
    (run_folder / name).unlink()
    assert report.read(run_folder).notes == [f"{name} is missing."]


@pytest.mark.parametrize(
    ("setting", "name"), [({"optimizer": "adamw"}, "polynomials.json"), ({"sample_tokens": 0}, "samples.txt")]
)
def test_a_file_that_the_run_was_not_to_write_is_not_missed(run_folder, setting, name):
    (run_folder / name).unlink()
    config = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))
    (run_folder / "config.json").write_text(json.dumps(config | setting), encoding="utf-8")
    assert report.read(run_folder).notes == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2", b"7", b"\xff\xfe\x00", b"[" * 100_000])
@pytest.mark.parametrize("name", FILES[:-1])
def test_a_damaged_file_is_said(run_folder, name, content):
    (run_folder / name).write_bytes(content)
    assert any(name in note for note in report.read(run_folder).notes)


def test_a_step_written_twice_counts_once_as_written_last(run_folder):
    with (run_folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "step", "step": 60, "loss": 1.25}) + "\n")
    run = report.read(run_folder)
    assert [row["step"] for row in run.steps] == list(range(1, 121))
    assert run.steps[59]["loss"] == 1.25


def test_damaged_lines_are_counted(run_folder):
    with (run_folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('nonsense\n[1]\n{"kind": "step", "step": 121, "loss": 1.0}\n{"kind": "st')
    notes = report.read(run_folder).notes
    assert notes[0] == "The last line of metrics.jsonl was cut off and was left out."
    assert "2 damaged lines" in notes[1]


def test_losses_that_are_not_finite_are_said(run_folder):
    with (run_folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "step", "step": 121, "loss": NaN}\n{"kind": "step", "step": 122, "loss": Infinity}\n')
    assert report.read(run_folder).notes == ["The loss is not a finite number in 2 of 122 steps, first at step 121."]


def test_final_figures_come_from_the_summary_else_from_the_last_line(run_folder):
    stated = report.read(run_folder).final("bits_per_byte")
    assert (
        report.read(run_folder).final("loss")
        == json.loads((run_folder / "summary.json").read_text())["validation_loss"]
    )
    (run_folder / "summary.json").unlink()
    assert report.read(run_folder).final("bits_per_byte") == stated
    assert report.read(run_folder).final("tokens") == 4096 * 120
    assert report.read(run_folder).final("unheard_of") is None


def test_no_run_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"no run in .*spectrain train"):
        report.read(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        report.read(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="no folder"):
        report.write([tmp_path / "missing"], out=tmp_path / "report.html")
    with pytest.raises(ValueError, match="at least one"):
        report.write([], out=tmp_path / "report.html")


def test_a_folder_of_runs_is_not_one_run(comparison_folder):
    with pytest.raises(ValueError, match=r"several.*report\.write"):
        report.read(comparison_folder)
