"""Docstrings as Markdown: examples in fences, roles of Sphinx as code, articles as links."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")
_ARTICLE = re.compile(
    r"(?<![\w./\[])(?:article (\d{3,5})(?:,\s+kexue\.fm/archives/\1)?|kexue\.fm/archives/(\d{3,5}))\b"
)
_PAGE = re.compile(r"``docs/([\w-]+)\.md``")


class Markdown(griffe.Extension):
    """Rewrites every docstring once it is collected."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a function, class, attribute or module."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def _article(number: str) -> str:
    return f"[article {number}](https://kexue.fm/archives/{number})"


def markdown(text: str) -> str:
    """The text of a docstring for a page of ``docs/api``."""
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    text = _ARTICLE.sub(lambda found: _article(found[1] or found[2]), text)
    text = _PAGE.sub(r"[\1](../\1.md)", text)
    lines, open_example = [], False
    for line in text.splitlines():
        if not open_example and line.startswith(">>>"):
            lines, open_example = [*lines, "", "```pycon"], True
        if open_example and not line.strip():
            lines, open_example = [*lines, "```"], False
        lines.append(line)
    return "\n".join([*lines, "```"] if open_example else lines)
