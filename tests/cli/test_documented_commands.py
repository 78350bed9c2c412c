"""Every command line that README, the pages or --help show runs to its end; a new one is found by itself."""

import contextlib
import gzip
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from spectrain import report
from spectrain.cli import main
from spectrain.cli._main import VERBS
from spectrain.train._jobs import image_judge
from spectrain.train._run.jobs import TRAINERS

ROOT = Path(__file__).parents[2]
TINY = {
    "--depth": "1", "--width": "32", "--heads": "2", "--vocabulary": "300", "--block": "16", "--batch-size": "4",
    "--max-steps": "2", "--eval-tokens": "256", "--sample-tokens": "4", "--threads": "1", "--autocast": "off",
    "--muon-dtype": "float32", "--spectrum-interval": "0",
}  # fmt: skip
CHECK = {"--data": "prose.txt", "--widths": "32 64", "--head-dim": "8", "--steps": "2", "--seeds": "0", "--block": "16",
         "--batch-size": "2", "--threads": "1"}  # fmt: skip
SHAPE = ("--depth", "--width", "--heads", "--vocabulary")
SMALL = {
    "train": TINY,
    "compare": {**{flag: value for flag, value in TINY.items() if flag != "--eval-tokens"}, "--data": "prose.txt",
                "--lr": "1e-3", "--seeds": "0"},
    "embed": {"--data": "pairs.jsonl", "--vocabulary": "300", "--batch-size": "16", "--max-steps": "2",
              "--threads": "1", "--autocast": "off", "--muon-dtype": "float32"},
    "draw": {"--max-steps": "2", "--batch-size": "8", "--depth": "1", "--width": "32", "--eval-pictures": "20",
             "--many-steps": "2", "--threads": "1", "--muon-dtype": "float32"},
    "classify": {"--max-steps": "2", "--batch-size": "8", "--depth": "1", "--width": "32", "--threads": "1",
                 "--autocast": "off", "--muon-dtype": "float32", "--spectrum-interval": "0"},
    "check coordinates": CHECK, "check spectrum": CHECK, "check lr-transfer": {**CHECK, "--rates": "1e-3 2e-3 4e-3"},
    "compress": {"--calibration-tokens": "256"},
    "prepare": {"--vocabulary": "300", "--workers": "1"},
    "sample": {"--tokens": "4"},
}  # fmt: skip
"""What is appended where the command as shown would take long, by verb."""
RUNS = {"embed": "runs/e", **dict.fromkeys(("sample", "export", "report", "compress", "watch"), "runs/a")}
FOR_GGUF = "runs/six"
"""A run whose tokenizer llama.cpp has."""
ENDS = {"check": (0, 1)}
"""A check that fails has come to its end as well."""


def cleaned(shown):
    """A command line as typed, from one with what it does after two spaces or behind ``#``; None for a mere name."""
    command = re.split(r"\s{2,}|\s#|$", " ".join(shown.splitlines()).strip(), maxsplit=1)[0]
    return re.sub(r"\s*\[[^\]]*\]|\s*\.\.\.$|(?<=RUN)\.\.\.", "", command)


def in_page(text):
    """Indented lines and code spans that begin with ``spectrain`` and a verb."""
    lines = re.findall(r"^(?: {4}|\t)(?:\$ )?(spectrain [a-z-].*)$", text, flags=re.MULTILINE)
    fences = [line for block in re.findall(r"```(?:sh|bash|console|text)?\n(.*?)```", text, flags=re.DOTALL)
              for line in re.findall(r"^(?:\$ )?(spectrain [a-z-].*)$", block, flags=re.MULTILINE)]  # fmt: skip
    spans = [" ".join(span.split()) for span in re.findall(r"`(spectrain\s[^`]+)`", text)]
    return [command for command in map(cleaned, lines + fences + spans) if command.split()[1].lower() in known()]


def known():
    return {*VERBS, "--help", "--version"}


def in_help(text):
    """What a help text shows besides its usage."""
    plain = re.sub(r"[│╭╮╰╯─]", " ", text)
    plain = " ".join(line for line in plain.split("\n") if not line.strip().startswith("usage:"))
    found = re.findall(r"spectrain (?:" + "|".join(VERBS) + r")\b(?: (?:--[a-z-]+|RUN|\"[^\"]*\"|'[^']*'))*", plain)
    return [cleaned(" ".join(command.split())) for command in found]


def helped(words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue()


def shown():
    """Every command line with where it is shown, each once."""
    pages = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))]
    history = {"log.md", "complaints.md", "decisions.md"}  # what was typed then, at other versions
    found = {}
    for page in pages:
        if page.name not in history:
            for command in in_page(page.read_text(encoding="utf-8")):
                found.setdefault(command, page.name)
    for words in ([], *([verb] for verb in VERBS)):
        for command in in_help(helped(words)):
            found.setdefault(command, " ".join(["--help", *words]))
    return found


COMMANDS = shown()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """The files and runs that the pages speak of."""
    place = tmp_path_factory.mktemp("workshop")
    lines = [f"line {i}: the norm of a matrix is its largest singular value, {i % 7} times." for i in range(200)]
    text = "\n".join(lines) + "\n"
    for folder in ("notes", "src", "prose", "code", "pictures"):
        (place / folder).mkdir()
    for name in ("prose.txt", "notes/a.txt", "src/a.py", "prose/a.txt", "prose/b.txt", "code/a.py", "code/b.py"):
        (place / name).write_text(f"# {name}\n{text}", encoding="utf-8")
    (place / "book.txt.gz").write_bytes(gzip.compress(text.encode()))
    (place / "code.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": f"{i} {text}"}) + "\n" for i in range(20)).encode())
    )
    pairs = [{"query": f"what is {i}", "document": f"{i} is a number", "group": str(i % 20)} for i in range(100)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    pictures(place / "pictures")
    draw = np.random.default_rng(1)
    np.savez(place / "pictures.npz", images=draw.integers(0, 255, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 2)
    before = Path.cwd()
    os.chdir(place)
    try:
        words = ["--data", "prose/", "code.jsonl.gz", "--apart", "--out-dir", "tokens"]
        assert main(["prepare", *words, *flags(SMALL["prepare"], [])]) == 0
        for verb, run in (("train", "runs/a"), ("train", "runs/six"), ("embed", "runs/e")):
            own = ["--tokenizer", "bytes"] if run == FOR_GGUF else []
            assert main([verb, *flags({"--data": "prose.txt", **SMALL[verb]}, []), *own, "--out-dir", run]) == 0
        assert main(["export", "runs/a", "--out", "tiny-llama"]) == 0
        small = {name: value for name, value in SMALL["train"].items() if name not in SHAPE}
        words = ["--init-from", "tiny-llama", "--lora", "2", "--out-dir", "runs/l"]
        assert main(["train", *flags({"--data": "prose.txt", **small}, []), *words]) == 0
        shutil.copytree("runs/l/adapter", "adapter")
    finally:
        os.chdir(before)
    return place


def pictures(folder):
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for i in range(60):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / str(i % 2) / f"{i}.png")


def flags(small, words):
    """The flags of ``small``; data that the command names itself stay."""
    named = {"--data"} & {*words}
    return [word for flag, value in small.items() if flag not in named for word in (flag, *value.split())]


def typed(command):
    """The words of a command line, with the run that it speaks of and small settings after them."""
    _, *words = shlex.split(command)
    run = FOR_GGUF if "gguf" in words else RUNS.get(words[0], "RUN")
    words = [{"RUN": run, "FOLDER": "exported"}.get(word, word) for word in words]
    if words[0] == "calibrate":
        return [*words, "--rounds", "1"]
    if "--help" in words or words[0] in ("--version", "plan", "gallery"):
        return words
    verb = " ".join(words[:2]) if words[0] == "check" else words[0]
    if "--resume" in words:  # a run that goes on takes nothing else
        return words
    if "--config" in words:
        return [*words, "--out-dir", "runs/other"]
    if words[0] == "watch":
        return [*words, "--port", "0"]
    if words[0] == "embed" and "--query" in words:
        return words
    if words[0] in ("sample", "report"):
        return [*words, *(flags(SMALL["sample"], words) if words[0] == "sample" else [])]
    defaults = {"train": {"--data": "prose.txt"}}.get(words[0], {})
    decided = {"--init-from": SHAPE, "--tokenizer": ("--vocabulary",)}
    told = {flag for asked, fixed in decided.items() if asked in words for flag in fixed}
    small = flags(
        {flag: value for flag, value in {**defaults, **SMALL.get(verb, {})}.items() if flag not in told}, words
    )
    if "--finetune-steps" in words:
        small += ["--finetune-steps", "2"]
    where = {"design": "--out", "export": "--out"}.get(words[0], "--out-dir")
    return [*words, *small, where, f"made/{abs(hash(command))}"]


def is_name(command):
    """Whether the page speaks of a verb that does nothing without more words: its name, no command line."""
    return command in ("spectrain check", "spectrain gallery", "spectrain sample", "spectrain export",
                       "spectrain report", "spectrain compress", "spectrain prepare", "spectrain watch")  # fmt: skip


@pytest.mark.parametrize("command", [command for command in COMMANDS if not is_name(command)])
def test_a_command_line_that_is_shown_runs_to_its_end(command, workshop, monkeypatch, capsys):
    if "fashion-mnist" in command:
        pytest.skip("needs Debian's package dataset-fashion-mnist, which is fetched over the network")
    if "gguf" in command.split():
        pytest.importorskip("gguf", reason="files of GGUF are written by the package gguf")
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(report.Watch, "serve_forever", lambda server: None)  # it would never end
    monkeypatch.setattr(image_judge, "_STEPS", 8)  # a small setting that no flag has: the judge of what draw draws
    try:
        code = main(typed(command))
    except SystemExit as leaving:  # --help
        code = leaving.code or 0
    assert code in ENDS.get(command.split()[1], (0,)), f"{COMMANDS[command]}: {capsys.readouterr().err}"


def test_the_pages_show_what_is_looked_for():
    verbs = {command.split()[1] for command in COMMANDS}
    tools = {"compress", "check", "compare", "design", "plan", "export", "sample", "prepare", "watch"}
    assert {*TRAINERS, *tools} <= verbs


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("    spectrain train --depth 6   a deeper one\n", ["spectrain train --depth 6"]),
        ("    spectrain check spectrum  # exit code 0\n", ["spectrain check spectrum"]),
        ("see `spectrain report\nRUN...`.", ["spectrain report RUN"]),
        ("```\nspectrain design --steps 3\n```", ["spectrain design --steps 3"]),
        ("spectrain is a library; `spectrain.nn`", []),
    ],
)
def test_a_command_line_is_found_wherever_a_page_shows_it(text, wanted):
    assert in_page(text) == wanted
