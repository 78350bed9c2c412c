"""Byte-level vocabularies: how bytes are written as tokens, what a complete one has, and where merges may happen.

They happen within the pre-tokens of a text, which come from one pattern that two engines read alike.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from spectrain.data._text.document import DataError
from spectrain.data._text.special import END_OF_TEXT

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

SPACE = "\u2581"
"""How tokenizers of words write a space."""
_BORDER = re.compile(f"\n(?=[^{_SPACE}])")


def pieces(text: str | Iterable[str], *, size: int = 1 << 16) -> Iterator[str]:
    r"""Yield consecutive parts of ``text`` of about ``size`` characters, together the whole text.

    A text may come in parts of any size: where it is cut does not depend on them.

    A part ends after a newline before anything but space: no pre-token crosses that, so the parts
    have the pre-tokens of the whole. A text without such a place within another ``size`` characters
    is cut where it stands; it decodes to the same text all the same.

    >>> list(pieces("one\ntwo\n  three\nfour", size=10))
    ['one\ntwo\n  three\n', 'four']
    """
    parts = iter((text,) if isinstance(text, str) else text)
    held, start, more = "", 0, True
    while True:
        while more and len(held) - start <= 2 * size:  # what follows decides where a piece ends
            part = next(parts, None)
            more = part is not None
            held, start = held[start:] + (part or ""), 0
        if start >= len(held):
            return
        border = _BORDER.search(held, start + size, start + 2 * size + 1)
        stop = border.end() if border else start + 2 * size
        yield held[start:stop]
        start = stop


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """The printable character by which a byte-level vocabulary writes each byte (GPT-2's table).

    Printable Latin-1 bytes stand for themselves, the 68 others for U+0100 and following, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Cut by our pattern, then write the bytes as characters."""
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def assemble(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Build the tokenizer whose tokens are the 256 bytes, the merges in order, and end-of-text."""
    # Two merges can spell one token (a + bc, ab + c), hence the dict.
    tokens = dict.fromkeys([*byte_characters(), *(left + right for left, right in merges)])
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return backend


def cuts_as_we_do(backend: tokenizers.Tokenizer) -> bool:
    """Whether the pre-tokens of ``backend`` are those of ``pretokens``."""
    ours, theirs = (json.loads(b.to_str()) for b in (assemble([]), backend))
    return all(theirs[part] == ours[part] for part in ("normalizer", "pre_tokenizer"))


def falls_back(backend: tokenizers.Tokenizer) -> bool:
    """Whether tokens are words with U+2581 for a space, and bytes as ``<0x0A>`` where there is no word (Llama 2's)."""
    return bool(getattr(backend.model, "byte_fallback", False))


def _bytes_of_word(token: str) -> bytes:
    byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()


def _bytes_of_characters(token: str) -> bytes:
    return bytes(map(_byte_of().__getitem__, token))


@functools.cache
def _byte_of() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def bytes_of_tokens(backend: tokenizers.Tokenizer, *, end: int) -> list[bytes]:
    """The bytes each token stands for, by id; nothing for end-of-text, other special tokens and ids without a token.

    DataError if some byte has no token.
    """
    bytes_of = _bytes_of_word if falls_back(backend) else _bytes_of_characters
    added = backend.get_added_tokens_decoder()
    vocabulary = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    table = [b""] * (max(vocabulary, default=-1) + 1)
    try:
        for i, token in vocabulary.items():
            if i in added:  # stands for itself, not written by byte characters
                table[i] = b"" if added[i].special or i == end else token.encode()
            elif i != end:
                table[i] = bytes_of(token)
    except KeyError as error:
        raise DataError(f"not a byte-level tokenizer: a token contains {error.args[0]!r}") from None
    missing = 256 - len({token for token in table if len(token) == 1})
    if missing:
        raise DataError(f"not a complete byte-level tokenizer: {missing} of 256 bytes have no token")
    return table
