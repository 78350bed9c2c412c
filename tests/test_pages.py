"""Every system has its page, every page can be found, and what the table says works is in the package."""

import importlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SYSTEMS = 24


class System(NamedTuple):
    """One row of the table in ``docs/index.md``."""

    number: str
    articles: list[str]
    page: str
    names: list[str]


def table(root):
    """The systems of the index, by number."""
    lines = (root / "docs/index.md").read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines if re.match(r"\| \d+ \|", line)]
    return {row[0]: read(row) for row in rows}


def read(cells):
    number, _, articles, page, where, *_ = cells
    links = re.findall(r"\]\(([^)]+)\)", f"{articles} {page}")
    return System(
        number=number,
        articles=[link.rpartition("/")[2] for link in links if "kexue.fm/archives/" in link],
        page=next(link for link in links if link.endswith(".md")),
        names=re.findall(r"(?<!in )`(\w+(?:\.\w+)+)`", where),
    )


def in_package(name):
    place, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(f"spectrain.{place}"), attribute)


def faults_of(system, root):
    """What is wrong with a system's row and page."""
    page = root / "docs" / system.page
    if not page.exists():
        return [f"{system.number}: no page {system.page}"]
    text = page.read_text(encoding="utf-8")
    found = [f"{system.page} does not name article {a}" for a in system.articles if not re.search(rf"\b{a}\b", text)]
    there = [in_package(name) for name in system.names]
    if not (there and all(there)):
        found.append(f"{system.number}: not in the package: {dict(zip(system.names, there, strict=True))}")
    return found


def faults_of_the_whole(root):
    """What is wrong with the set of pages, the navigation and the version."""
    english = [path for path in root.glob("docs/**/*.md") if ".zh" not in path.suffixes]  # the others: test_chinese.py
    pages = {str(path.relative_to(root / "docs")) for path in english}
    # Those of not_in_nav, which are for maintainers, count: a link from the index leads to them.
    known = re.findall(r"[\w/-]+\.md\b", (root / "mkdocs.yml").read_text(encoding="utf-8"))
    nav = [page.removeprefix("/") for page in known]
    version = re.search(r'__version__ = "(.+)"', (root / "spectrain/__init__.py").read_text(encoding="utf-8"))[1]
    found = [f"row {n} is missing" for n in range(1, SYSTEMS + 1) if str(n) not in table(root)]
    found += [f"{page} is not in the navigation" for page in sorted(pages - set(nav))]
    found += [f"the navigation has {page}, which does not exist" for page in sorted(set(nav) - pages)]
    found += [f"{page} cannot be reached from the index" for page in sorted(pages - reached(root))]
    files = ("CHANGELOG.md", "CITATION.cff")
    found += [f"{file} does not say {version}" for file in files if not says(root / file, version)]
    return found


def reached(root):
    """The pages that links lead to, from the index on."""
    docs, seen, ahead = (root / "docs").resolve(), set(), ["index.md"]
    while ahead:
        page = ahead.pop()
        if page not in seen and (docs / page).exists():
            seen.add(page)
            links = re.findall(r"\]\(([^)#:\s]+\.md)[^)]*\)", (docs / page).read_text(encoding="utf-8"))
            ahead += [str((docs / page).parent.joinpath(link).resolve().relative_to(docs)) for link in links]
    return seen


def says(file, version):
    return re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.]*\d)", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("system", table(ROOT).values(), ids=lambda system: system.page)
def test_a_system_has_a_page_that_names_its_article_and_is_in_the_package(system):
    assert faults_of(system, ROOT) == []


def test_every_page_can_be_found_and_the_version_is_told():
    assert faults_of_the_whole(ROOT) == []


def replace(file, old, new):
    def change(root):
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new), encoding="utf-8")

    return change


WRONG = {
    "a page is missing": lambda root: (root / "docs/cur.md").unlink(),
    "a page nobody links to": lambda root: (root / "docs/stray.md").write_text("# Stray\n", encoding="utf-8"),
    "a row is missing": replace("docs/index.md", "| 16 |", "| |"),
    "a page without its article": replace("docs/cr.md", "10427", "article"),
    "a name that is not there": replace("docs/index.md", "`approx.minimax`", "`approx.maximin`"),
    "a row without a name": replace("docs/index.md", "`approx.minimax`", "approx.minimax"),
    "a page outside the navigation": replace("mkdocs.yml", ": cur.md\n", ": svd.md\n"),
    "a version without a changelog": replace("spectrain/__init__.py", '__version__ = "', '__version__ = "9.'),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_pages(spoil, tmp_path):
    for name in ("CHANGELOG.md", "CITATION.cff", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "spectrain").mkdir()
    shutil.copy(ROOT / "spectrain/__init__.py", tmp_path / "spectrain")

    def faults():
        rows = [fault for system in table(tmp_path).values() for fault in faults_of(system, tmp_path)]
        return {*rows, *faults_of_the_whole(tmp_path)}

    before = faults()
    spoil(tmp_path)
    assert faults() - before
