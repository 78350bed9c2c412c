"""Where merges may happen: the pre-tokens of a text, by one pattern that two engines read alike."""

import re
from collections.abc import Iterator

# The pattern is written with explicit sets of characters instead of \w and \s, about which the engine
# inside `tokenizers` (Oniguruma) and Python's differ. A letter is an ASCII letter or anything from U+0080
# on but the blocks of punctuation (U+2000, U+3000, U+FF00); what is no letter, digit or space is a sign.
_LETTER = "A-Za-z\u0080-\u1fff\u2070-\u2fff\u3040-\ufeff\ufff0-\U0010ffff"
_SPACE = " \t-\r"

# Where the borders lie was chosen by the bits per byte of a small model after equal training on the
# standard library (docs/data.md), not by bytes per token: signs glued to words or to the line's end give
# longer tokens and a worse model.
PATTERN = (
    f"[{_SPACE}]*\n[ \t]*"  # the line's end, blank lines, and the next line's indent
    f"| ?[{_LETTER}]+"  # a word with the space before it
    f"| ?[0-9]{{1,3}}"
    f"| ?[^0-9{_LETTER}{_SPACE}]+"  # signs: "(", " ==", "):", "__"
    f"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"  # other runs of spaces, the last one left to the word
)

pretokens = re.compile(PATTERN).findall
"""The pre-tokens of a text, in order; together they are the text."""

_BORDER = re.compile(f"\n(?=[^{_SPACE}])")


def pieces(text: str, *, size: int = 1 << 16) -> Iterator[str]:
    r"""Yield consecutive parts of ``text`` of about ``size`` characters, together the whole text.

    A part ends after a newline before anything but space: no pre-token crosses that, so the parts
    have the pre-tokens of the whole. A text without such a place within another ``size`` characters
    is cut where it stands; it decodes to the same text all the same.

    >>> list(pieces("one\ntwo\n  three\nfour", size=10))
    ['one\ntwo\n  three\n', 'four']
    """
    start = 0
    while start < len(text):
        border = _BORDER.search(text, start + size, start + 2 * size + 1)
        stop = border.end() if border else start + 2 * size
        yield text[start:stop]
        start = stop
