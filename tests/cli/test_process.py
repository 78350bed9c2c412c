"""Ctrl-C at any moment, output that cannot be written, numbers that would never end: one line and the right code."""

import os
import signal
import subprocess
import sys

import pytest

from spectrain._spinning import KNOWN, limit_spinning
from spectrain.cli import main

MODULES = ("torch", "torch.functional", "torch._ops", "tyro", "spectrain.train.config", "spectrain.train._run.loop")
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                sum(range(1000))
            except KeyboardInterrupt:
                if sys.argv[2] == "changed":
                    raise ImportError("numpy failed to import") from None
                raise
sys.meta_path.insert(0, Finder())
from spectrain.cli import main
sys.exit(main(sys.argv[3:]))
"""


def run(*words, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, words)), env=environment, stderr=subprocess.PIPE, text=True, timeout=300, check=False, **options
    )


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        *((module, "plain") for module in MODULES),
        ("torch", "changed"),
        *(pytest.param(module, "changed", marks=pytest.mark.full) for module in MODULES[1:]),
    ],
)
def test_control_c_during_start_up_is_130_and_one_line(module, kind, tmp_path, text):
    flags = ["train", "--data", text, "--max-steps", 1, "--out-dir", tmp_path / "run"]
    done = run(sys.executable, "-W", "ignore", "-c", INTERRUPTED, module, kind, *flags, stdout=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (130, "spectrain: error: interrupted.\n")
    assert not (tmp_path / "run").exists()


def test_an_error_without_control_c_stays_what_it_is(tmp_path, text):
    program = INTERRUPTED.replace("os.kill(os.getpid(), signal.SIGINT)", "raise KeyError('torch')").replace(
        "sum(range(1000))", ""
    )
    done = run(sys.executable, "-c", program, "torch", "plain", "train", "--data", text, stdout=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "KeyError" in done.stderr
    assert "interrupted" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["design", "recipe"], ["train", "--help"]])
def test_output_that_is_lost_is_said_and_not_a_success(words):
    with open("/dev/full", "w") as full:
        done = run(sys.executable, "-m", "spectrain", *words, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output could not be written: [Errno 28]" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_run_is_worth_more_than_its_lines(tiny, tmp_path):
    with open("/dev/full", "w") as full:
        flags = [*tiny, "--max-steps", 2, "--out-dir", tmp_path / "run"]
        done = run(sys.executable, "-m", "spectrain", "train", *flags, stdout=full)
    assert done.returncode == 1
    assert "standard output could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["design", "recipe"], 0), (["trian"], 2)])
def test_closed_streams_are_nobody_s_wish_to_read(words, code, closed):
    shut = "".join(f" {descriptor}>&-" for descriptor in closed)
    done = run("sh", "-c", f'exec "$@"{shut}', "sh", sys.executable, "-m", "spectrain", *words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


HUGE = "99999999999999999999"
ENDLESS = [
    *(["train", flag, HUGE] for flag in ("--max-steps", "--depth", "--width", "--block", "--batch-size", "--seed",
      "--vocabulary", "--eval-interval", "--save-interval", "--max-tokens", "--sample-tokens", "--warmup", "--horizon",
      "--moe-experts", "--heads", "--muon-steps", "--moe-shared", "--eval-tokens")),
    ["train", "--weight-decay", "inf"], ["train", "--weight-decay", "nan"], ["train", "--lr", "nan"],
    ["draw", "--many-steps", HUGE], ["draw", "--guidance", "inf"], ["embed", "--depth", HUGE],
    ["embed", "--temperature", "inf"], ["sample", "nowhere", "--tokens", HUGE], ["sample", "nowhere", "--copies", HUGE],
    ["compress", "nowhere", "--params", ".5", "--calibration-tokens", HUGE],
    ["compress", "nowhere", "--params", ".5", "--finetune-steps", HUGE],
    ["compress", "nowhere", "--params", ".5", "--lr", "nan"],
    ["check", "coordinates", "--steps", HUGE], ["check", "spectrum", "--depth", HUGE],
    ["check", "lr-transfer", "--seeds", "-1"], ["plan", "--depth", HUGE], ["plan", "--mesh", HUGE],
    ["plan", "--vocabulary", HUGE], ["compare", "--lr", "nan"], ["compare", "--seeds", "0", "-1"],
    ["compare", "--seeds", "0", HUGE],
]  # fmt: skip


@pytest.mark.parametrize("words", ENDLESS, ids=" ".join)
def test_a_number_beyond_all_bounds_is_refused_with_its_flag(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(words)
    assert code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    flag = next(word for word in reversed(words) if word.startswith("--"))
    assert flag.rstrip("s") in said or words[1] == "lr-transfer"
    assert "must be" in said
    assert list(tmp_path.iterdir()) == []


WRONG_FLAGS = {
    "train --lr x": "--lr takes FLOAT, got 'x'",
    "train --bound none": "--bound takes FLOAT or, to leave it out, None, got 'none'",
    "train --momentum": "--momentum needs a value; see spectrain train --help.",
    "train --lr": "--lr needs a value; see spectrain train --help.",
    "train --dept 3": "has no --dept. Did you mean --depth?",
    "train --optimizer lion": "--optimizer must be one of muon, normuon",
    "train --attention lion": "--attention must be one of gqa",
    "train --data": "--data needs at least one file",
    "train --data --depth 2": "--data needs at least one file",
    "train --depth": "--depth",
    "train stray": "spectrain train has no stray",
    "compare --optimizers lion": "--optimizers: invalid choice: 'lion'",
    "compare --lr x": "--lr: invalid float value: 'x'",
    "classify --widht 3": "has no --widht. Did you mean --width?",
    "sample": "Missing from spectrain sample: PATH The run folder.",
    "plan --depth x": "--depth takes INT, got 'x'",
    "check coordinates --steps x": "--steps takes INT, got 'x'",
    "gallery kepler --nope 1": "spectrain gallery kepler has no --nope",
}


@pytest.mark.parametrize("words", WRONG_FLAGS)
def test_a_wrong_flag_is_one_line_that_names_it(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("spectrain")
    assert WRONG_FLAGS[words] in said.err
    assert list(tmp_path.iterdir()) == []


def test_spins_are_limited_unless_the_user_said_how_threads_wait():
    ours = {}
    assert limit_spinning(ours)
    assert ours["GOMP_SPINCOUNT"].isdecimal()
    for name in KNOWN:
        theirs = {name: "1"}
        assert not limit_spinning(theirs)
        assert theirs == {name: "1"}


def test_the_command_limits_spins_before_torch_loads():
    program = (
        "import os, sys\nfrom spectrain.cli import main\nassert 'torch' not in sys.modules\nmain(['--version'])\n"
        "assert 'torch' not in sys.modules\nassert 'GOMP_SPINCOUNT' in os.environ\n"
        "import spectrain.nn\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in KNOWN}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    alone = "import os, spectrain, spectrain.matfun, spectrain.train\nassert 'GOMP_SPINCOUNT' not in os.environ"
    subprocess.run([sys.executable, "-c", alone], env=environment, check=True)  # a library leaves others' threads alone


def test_control_c_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


HELP = """
import contextlib, io, sys
from spectrain.cli import main
from spectrain.train.internal import TRAINERS
heavy = {"torch", "numpy", "safetensors", "jaxtyping"}
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(["--help"])
    assert not (heavy | {"tyro", "rich"}) & set(sys.modules)
    for words in [*([verb, "--help"] for verb in TRAINERS), ["train", "--dept", "3"], ["train", "--depth", "x"]]:
        with contextlib.suppress(SystemExit):
            main(words)
        assert not heavy & set(sys.modules), words
"""


def test_help_and_wrong_flags_are_answered_without_torch():
    subprocess.run([sys.executable, "-c", HELP], check=True)
