"""The command as a stranger types it: help, results, and one clear line for each mistake."""

import itertools
import json
import os
import stat
import subprocess
import sys

import pytest


def test_help_lists_every_verb(process):
    from spectrain.cli._main import VERBS

    overview = process("--help")
    assert overview.returncode == 0
    for verb in VERBS:
        assert f"  {verb} " in overview.stdout


@pytest.mark.parametrize(
    "verb", ["train", "draw", "sample", "export", "compare", "compress", "report", "design", "plan", "gallery"]
)
def test_a_verb_explains_itself(spectrain, verb):
    done = spectrain(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"spectrain {verb}" in done.stdout


def test_no_verb_is_a_wrong_call_that_shows_the_way(spectrain):
    done = spectrain()
    assert done.returncode == 2
    assert "usage: spectrain VERB" in done.stdout


def test_training_writes_a_run_and_says_so(finished):
    run, out = finished
    assert (run / "report.html").stat().st_size > 1_000_000
    for words in ("xz -6", "bits/byte", "parameters", "a sample", "report:", "run folder:"):
        assert words in out


def test_a_trained_model_continues_a_prompt(spectrain, finished):
    run, _ = finished
    first = spectrain("sample", run, "--prompt", "line 3", "--tokens", 12, "--seed", 1)
    again = spectrain("sample", run, "--prompt", "line 3", "--tokens", 12, "--seed", 1)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("line 3")
    assert len(first.stdout) > 12
    assert first.stdout == again.stdout


def test_several_prompts_are_continued_in_one_batch_and_speed_is_told(spectrain, finished):
    run, _ = finished
    done = spectrain(
        "sample", run, "--prompt", "line 3", "a longer line 4", "--copies", 2, "--tokens", 6, "--top-p", 0.9
    )
    assert done.returncode == 0, done.stderr
    assert [part.split("\n", 1)[1][:4] for part in done.stdout.split("=== ")[1:]] == ["line", "line", "a lo", "a lo"]
    assert "tokens/s, 32 numbers cached a token" in done.stderr
    speed = spectrain("sample", run, "--speed", "--tokens", 3)
    assert [line.split(":")[0].strip() for line in speed.stdout.splitlines()[:2]] == ["cached", "full"]
    wrong = spectrain("sample", run, "--form", "absorbed")
    assert wrong.returncode == 2
    assert "--form absorbed is for --attention mla" in wrong.stderr


def test_a_report_is_made_again_from_the_folder(spectrain, finished, tmp_path):
    done = spectrain("report", finished[0], "--out", tmp_path / "again.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_recorded_configuration_is_taken_back(spectrain, finished, tmp_path):
    done = spectrain(
        "train", "--config", finished[0] / "config.json", "--max-steps", 2, "--horizon", 2, "--out-dir", tmp_path / "b"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "b" / "config.json").read_text())["horizon"] == 2


def test_compare_counts_tokens_and_goes_on_where_it_was(spectrain, tiny, tmp_path):
    words = ("compare", *[w for i, w in enumerate(tiny) if w != "--lr" and tiny[i - 1] != "--lr"], "--max-steps", 10,
             "--lr", "1e-3", "3e-3", "--out-dir", tmp_path / "c")  # fmt: skip
    done = spectrain(*words)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert {(row["optimizer"], row["lr"]) for row in result["rows"]} == {
        (o, lr) for o in ("muon", "adamw") for lr in (1e-3, 3e-3)
    }
    best = min(row["final_loss"] for row in result["rows"] if row["optimizer"] == "adamw")
    assert result["tables"]["swept"]["target"] == best
    assert (tmp_path / "c" / "report.html").exists()
    again = spectrain(*words)
    assert again.returncode == 0
    assert "step 1/" not in again.stdout


def unwritable(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return folder / "run"


def file_of(tmp_path, content):
    path = tmp_path / "input.txt"
    path.write_bytes(content)
    return path


MISTAKES = {
    "unknown verb": (lambda p: ["trian"], ["'trian'", "Did you mean 'train'"]),
    "missing path": (lambda p: ["train", "--data", p / "nothing.txt"], ["nothing.txt"]),
    "empty file": (lambda p: ["train", "--data", file_of(p, b"")], ["input.txt", "empty"]),
    "binary file": (lambda p: ["train", "--data", file_of(p, b"\x7fELF\x00\x00\x01" * 99)], ["input.txt", "binary"]),
    "not UTF-8": (lambda p: ["train", "--data", file_of(p, b"caf\xe9 au lait " * 50)], ["input.txt", "UTF-8"]),
    "too short": (lambda p: ["train", "--data", file_of(p, b"a few words\nand a line\n")], ["error:", "block"]),
    "bad number": (lambda p: ["train", "--depth", "-3"], ["--depth", "-3"]),
    "not a number": (lambda p: ["train", "--depth", "deep"], ["depth"]),
    "unknown flag": (lambda p: ["train", "--lerning-rate", "3"], ["--lerning-rate"]),
    "no such device": (
        lambda p: ["train", "--device", "abacus", "--data", file_of(p, b"some words, " * 3000)],
        ["abacus"],
    ),
    "no run to sample": (lambda p: ["sample", p], ["not a run folder"]),
    "no run to report": (lambda p: ["report", p], ["run"]),
    "missing config": (
        lambda p: ["train", "--config", p / "no.json"],
        ["no.json", "is not there; give a run's config.json"],
    ),
    "unknown key": (lambda p: ["train", "--config", file_of(p, b'{"detph": 3}')], ["'detph'", "'depth'"]),
    "compare without the yardstick": (lambda p: ["compare", "--optimizers", "muon"], ["adamw"]),
    "design of an empty interval": (lambda p: ["design", "--lower", "2"], ["lower"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_message_and_exit_code_2(spectrain, tmp_path, name):
    words, wanted = MISTAKES[name]
    call = words(tmp_path)
    if call[0] == "train":
        call = [*call, "--out-dir", tmp_path / "out"]
    done = spectrain(*call)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr + done.stdout
    assert all(word in said for word in wanted), said


def test_a_folder_that_cannot_be_written_is_said(spectrain, tiny, tmp_path):
    if os.geteuid() == 0:
        target = "/proc/run"  # root writes through permissions; nobody writes here
    else:
        target = unwritable(tmp_path)
    done = spectrain("train", *tiny, "--max-steps", 2, "--out-dir", target)
    assert done.returncode == 2
    assert str(target) in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_trace(process, tmp_path):
    done = process("sample", tmp_path, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("interval", [0, 1])
@pytest.mark.parametrize("flag", ["--embedding-lr", "--vector-lr", "--weight-decay"])
def test_weights_that_ran_away_are_put_down_to_what_was_asked(spectrain, tiny, tmp_path, flag, interval):
    size = ("--max-steps", 3, "--spectrum-interval", interval, "--out-dir", tmp_path / "run")
    done = spectrain("train", *tiny, *size, flag, "1e300")
    assert done.returncode == 1
    assert f". Start a new run with a lower --lr or {flag}, or look at the data" in done.stderr
    assert "finite" in done.stderr


def test_resuming_needs_to_know_which_run(spectrain):
    done = spectrain("train", "--resume", "auto")
    assert done.returncode == 2
    assert "--out-dir" in done.stderr


def test_a_call_that_was_refused_leaves_nothing_in_the_way(spectrain, tiny, tmp_path):
    wrong = spectrain("train", *tiny, "--max-steps", 2, "--out-dir", tmp_path / "r", "--heads", 3)
    assert wrong.returncode == 2
    assert spectrain("train", *tiny, "--max-steps", 2, "--out-dir", tmp_path / "r").returncode == 0


@pytest.mark.parametrize("flags", [["--depth", 4], ["--optimizer", "adamw"], ["--keep-last", 1], ["--tied"]])
def test_a_flag_that_a_resumed_run_cannot_follow_is_refused(spectrain, finished, flags):
    done = spectrain("train", "--out-dir", finished[0], "--resume", "auto", *flags)
    assert done.returncode == 2
    assert f"{flags[0]} " in done.stderr


def test_defaults_typed_on_resume_count_as_typed(spectrain, finished):
    done = spectrain("train", "--out-dir", finished[0], "--resume", "auto", "--vocabulary", 4096)
    assert done.returncode == 2
    assert "--vocabulary 4096 differs from the run's 300" in done.stderr


def test_resuming_a_finished_run_changes_nothing(spectrain, finished):
    run, _ = finished
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "samples.txt", "model.safetensors")}
    assert spectrain("train", "--out-dir", run, "--resume", "auto").returncode == 0
    after = {name: (run / name).read_bytes() for name in before}
    assert after == before


def test_a_reader_that_leaves_does_not_end_the_run(tiny, tmp_path):
    flags = [*tiny, "--max-steps", 12, "--out-dir", tmp_path / "r"]
    words = [sys.executable, "-m", "spectrain", "train", *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=200) == 0, process.stderr.read()
    assert (tmp_path / "r" / "summary.json").exists()
    process.stderr.close()


def test_a_rate_that_diverges_is_a_row_of_the_comparison(spectrain, tiny, tmp_path):
    flags = [w for i, w in enumerate(tiny) if w != "--lr" and tiny[i - 1] != "--lr"]
    done = spectrain("compare", *flags, "--max-steps", 6, "--lr", "1e30", "1e-3", "--out-dir", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert "diverged" in done.stdout
    changed = spectrain("compare", *flags, "--max-steps", 8, "--lr", "1e-3", "--out-dir", tmp_path / "c")
    assert changed.returncode == 2
    assert "--max-steps 8 differs" in changed.stderr


@pytest.mark.parametrize("flags", [["--seed", 3], ["--optimizer", "adamw"], ["--max-minutes", 1]])
def test_compare_refuses_the_flags_it_does_not_follow(spectrain, flags):
    done = spectrain("compare", *flags)
    assert done.returncode == 2
    assert flags[0] in done.stderr


@pytest.mark.parametrize("temperature", ["nan", "inf", "1e-45", "-1"])
def test_an_impossible_temperature_is_a_wrong_call(spectrain, finished, temperature):
    done = spectrain("sample", finished[0], "--temperature", temperature)
    assert done.returncode == 2
    assert "temperature" in done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_help_wraps_where_the_screen_ends(process, monkeypatch, columns):
    """A line ends where the next word would not fit, or where a text ends: not where a line of the source did."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    lines = [line[2:-2].rstrip() for line in process("train", "--help").stdout.splitlines() if line.startswith("│")]
    start = next(len(line) - len(line.lstrip()) for line in lines if line.startswith(" "))
    texts = [line[start:] if line[:start].isspace() else None for line in lines]
    for above, below in itertools.pairwise(texts):
        if above and below:
            assert start + len(above) + 1 + len(below.split()[0]) > columns - 4, above
    said = "\n".join(lines)
    assert "(default: None)" not in said
    assert "{None}" not in said
    assert "(default: 0.3)" in said


def test_help_flags_are_still_read_as_they_were(spectrain, tmp_path):
    done = spectrain("train", "--data", tmp_path, "--lr", "None", "--depth", "x", "--out-dir", tmp_path / "run")
    assert done.returncode == 2
    assert "--depth takes INT, got 'x'" in done.stderr
