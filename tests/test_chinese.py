"""A Chinese page of ``docs/`` says what the English one says: the same code, figures, records and links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.zh.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"\d(?:[\d,]*\d)?(?:\.\d+)?")


def english(page):
    return page.with_name(page.name.replace(".zh.md", ".md"))


def prose(text):
    return BLOCK.sub("", text)


def tables(text):
    """The figures of each row of each table, in the order of the cells."""
    found = re.findall(r"(?:^\|[^|].*\n)+", prose(text), re.MULTILINE)
    return [[FIGURE.findall(row) for row in table.splitlines()] for table in found]


def records(text):
    """Programs and records that a page names as the source of its figures."""
    return set(re.findall(r"benchmarks[/.][\w/.-]*\w", prose(text)))


def articles(text):
    return set(re.findall(r"kexue\.fm/archives/(\d+)", text))


def links(text):
    """Links to pages and pictures, without the place within a page."""
    return set(re.findall(r"\]\(([^):#\s]+)(?:#[^)]*)?\)", prose(text)))


def figures(text):
    return set(FIGURE.findall(prose(text)))


def names(text):
    """What stands in backticks: names, flags, files."""
    return set(re.findall(r"`([^`\n]+)`", prose(text)))


def faults(said, meant):
    """Where a Chinese text departs from the English one."""
    found = []
    if BLOCK.findall(said) != BLOCK.findall(meant):
        found.append("other code blocks")
    if tables(said) != tables(meant):
        found.append("other figures in a table")
    if new := figures(said) - figures(meant):
        found.append(f"figures that the English page does not have: {sorted(new)}")
    if missing := (figures(meant) - figures(said)) | (names(meant) - names(said)):
        found.append(f"left out: {sorted(missing)}")
    if records(said) != records(meant):
        found.append(f"other records: {sorted(records(said) ^ records(meant))}")
    if links(said) != links(meant):
        found.append(f"other links: {sorted(links(said) ^ links(meant))}")
    if missing := articles(meant) - articles(said):
        found.append(f"no link to {sorted(missing)}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_chinese_page_says_what_the_english_one_says(page):
    assert english(page).exists()
    assert faults(page.read_text(encoding="utf-8"), english(page).read_text(encoding="utf-8")) == []


def test_the_index_and_the_page_of_every_system_are_there_in_chinese():
    rows = re.findall(r"^\| \d+ \|.*", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {target for row in rows for target in links(row)}
    assert len(pages) == len(rows) == 24
    missing = {page for page in {"index.md", *pages} if not (ROOT / "docs" / page.replace(".md", ".zh.md")).exists()}
    assert missing == set()


def navigation():
    """Titles of the site's navigation, each with its page or None, and the titles that have a Chinese one."""
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    translated, menu = site.partition("nav_translations:\n")[2], site.partition("\nnav:\n")[2]
    titles = re.findall(r'^ +- "?([^"\n]+?)"?:(?: (\S+\.md))?$', menu, re.MULTILINE)
    chinese = re.match(r'(?: {12}"?.+?"?: .+\n)+', translated)[0]
    named = re.findall(r'^ +(?:"([^"\n]+)"|([^":\n]+)): \S', chinese, re.MULTILINE)
    return titles, {quoted or plain for quoted, plain in named}


def test_every_page_that_users_are_led_to_is_there_in_chinese():
    """The reference is made of docstrings, which are English."""
    pages = [page for _, page in navigation()[0] if page and not page.startswith("api/")]
    assert len(pages) > 45
    assert [page for page in pages if not (ROOT / "docs" / page.replace(".md", ".zh.md")).exists()] == []


def test_every_title_of_the_navigation_is_there_in_chinese():
    titles, chinese = navigation()
    same = {title for title, page in titles if page and page == f"api/{title}.md"} | {"Muon"}
    assert {"Attention", "A run on paper", "Experts: balance", "Gallery"} <= chinese
    assert {title for title, _ in titles} - same - chinese == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_places_in_chinese_pages_lead_somewhere(page):
    for target, place in re.findall(r"\]\(([^):#\s]+\.md)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        there = page.parent / target.replace(".md", ".zh.md")
        if there.exists():
            assert f'id="{place}"' in there.read_text(encoding="utf-8"), f"{page.name} links to {target}#{place}"


MEANT = """# One step

Article [561](https://kexue.fm/archives/561), [more](more.md). It took 2.5 s (`benchmarks/optim/step.py`).

New: `step(k)` takes k steps at once, 16 at most.

```python
assert step(1) == 2  # two
```

| rows | time |
|---|---|
| 1,024 | 0.75 |
"""
SAID = (
    MEANT.replace("It took 2.5 s", "用时 2.5 秒")
    .replace("takes k steps at once, 16 at most", "一次走 k 步，至多 16 步")
    .replace("| rows | time |", "| 行数 | 用时 |")
)
WRONG = {
    "another figure in the text": ("2.5", "2.4"),
    "another figure in a table": ("0.75", "0.57"),
    "figures of a table exchanged": ("| 1,024 | 0.75 |", "| 0.75 | 1,024 |"),
    "a row left out": ("| 1,024 | 0.75 |\n", ""),
    "other code": ("step(1)", "step(2)"),
    "another comment in code": ("# two", "# 二"),
    "a block left out": ("```python\nassert step(1) == 2  # two\n```", ""),
    "a new paragraph left out": ("New: `step(k)` 一次走 k 步，至多 16 步.\n\n", ""),
    "a name left out": ("`step(k)` ", ""),
    "a figure left out": ("至多 16 步", "步数有限"),
    "a record left out": ("benchmarks/optim/step.py", "step.py"),
    "a page left out": ("[more](more.md)", "more"),
    "an article left out": ("[561](https://kexue.fm/archives/561)", "561"),
}


def test_a_translation_passes():
    assert SAID != MEANT
    assert faults(SAID, MEANT) == []


@pytest.mark.parametrize(("old", "new"), WRONG.values(), ids=WRONG)
def test_the_check_rejects_a_wrong_translation(old, new):
    assert old in SAID
    assert faults(SAID.replace(old, new), MEANT)
