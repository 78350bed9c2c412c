"""Every Python block of README and the pages can be pasted into Python's plain prompt, line by line."""

import code
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "README.zh.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


class Prompt(code.InteractiveConsole):
    """The plain ``>>>``, which compiles what it is given and runs nothing."""

    def __init__(self):
        super().__init__()
        self.refused = []

    def runcode(self, code):
        """Nothing: that blocks run is tested elsewhere."""

    def showsyntaxerror(self, *_, **__):
        """Keep the lines that were refused."""
        self.refused.append(self.buffer[-1])


def refused(block):
    """The first line that the prompt refuses, or that leaves it waiting at the end; None where all is taken."""
    prompt, waits = Prompt(), False
    for line in block.splitlines():
        waits = prompt.push(line)
        if prompt.refused:
            return line
    if waits and prompt.push(""):  # the Enter with which a paste ends
        return block.splitlines()[-1]
    return prompt.refused[0] if prompt.refused else None


def blocks(text):
    """Those that are no transcript of a prompt themselves."""
    found = re.findall(r"^```(?:python|py)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith(">>>")]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_can_be_pasted(page):
    found = [(line, block) for block in blocks((ROOT / page).read_text(encoding="utf-8")) if (line := refused(block))]
    assert not found, (
        f"{page}: the prompt refuses {found[0][0]!r}; put an empty line behind the indented lines above it"
    )


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("for i in range(2):\n    print(i)\nx = 1\n", "x = 1"),
        ("def f():\n    a = 1\n\n    return a\n", "    return a"),
        ("with open('a') as f:\n    f.read()\n@g\ndef h(): pass\n", "@g"),
        ("x = (1,\n", "x = (1,"),
        ("if a:\n    b\n", None),
        ("if a:\n    b\nelse:\n    c\n\nd = 1\n", None),
        ("x = [\n\n    1,\n]\n", None),
    ],
)
def test_the_prompt_is_the_plain_one(block, line):
    assert refused(block) == line
