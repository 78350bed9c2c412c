"""Everything that claims to run, runs: docstrings, pages, README; every system of the design has its page."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import spectrain

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(spectrain.__path__, "spectrain.") if "__main__" not in m.name)
KERNELS = {f"spectrain._arrays._triton.{name}" for name in ("quintics", "symmetric")}
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("README*.md")])
RUN = [page for page in PAGES if ".zh" not in page.suffixes or page.parent == ROOT]  # test_chinese.py: the same blocks
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    if name in KERNELS:
        pytest.importorskip("triton", reason="kernels for CUDA need triton, for Linux: make test-integrations")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, str(page), str(page), 0)
            runner = doctest.DocTestRunner()
            runner.run(test, clear_globs=False)
            names = test.globs
            assert runner.summarize().failed == 0
        else:
            exec(compile(block, str(page), "exec"), names)


def test_a_wrong_example_would_fail(tmp_path):
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong", 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lambda _: None)
    assert runner.summarize(verbose=False).failed == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


READMES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]


def said(readme: str) -> dict[str, list[str]]:
    """What does not depend on the language: code, commands, figures and records of each row, and sections."""
    rows = [line for line in readme.splitlines() if line.startswith("| ") and "](" in line]
    return {
        "python": [re.sub(r"\s*#.*", "", line) for block in FENCE.findall(readme) for line in block.splitlines()],
        "commands": re.findall(r"^    (spectrain [a-z]+|make [a-z]+)", readme, re.MULTILINE),
        "verbs": sorted(
            set(re.findall(r"`(\w+)`", readme)) & {"check", "sample", "export", "compare", "compress", "plan"}
        ),
        "records": [target for row in rows for target in re.findall(r"\]\(([^)]+)\)", row)],
        "figures": [" ".join(re.findall(r"\d[\d.,]*\d|\d", row.split("|")[2])) for row in rows],
        "sections": ["##"] * len(re.findall(r"^## ", readme, re.MULTILINE)),
    }


@pytest.mark.parametrize("kind", said(READMES[0]))
def test_both_readmes_say_the_same(kind):
    english, chinese = (said(readme)[kind] for readme in READMES)
    assert english
    assert english == chinese


@pytest.mark.parametrize("readme", READMES, ids=["en", "zh"])
def test_a_reader_meets_python_first(readme):
    assert readme.find("```python") < readme.find("make train")
    assert readme[: FENCE.search(readme).end()].count("\n") < 40
