"""Training and validation text, divided by document and for ever."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from spectrain.data._text.document import DataError, Document


def split_documents(
    documents: Sequence[Document], *, fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    r"""Divide documents into ``(train, validation)`` with about ``fraction`` of the characters in validation.

    Whole documents: they are put in the order of SHA-256(seed, name) and taken for validation while
    they still fit into ``fraction`` of the characters. The result depends on the documents and the
    seed alone, not on the order of the list. Documents with the same text stay together, because a
    copy of a training document is not validation.

    **Few large documents** (a single book; three volumes): when the whole documents that fit come to
    less than half of what was asked, the last ``fraction`` of every document becomes validation,
    cut at the beginning of a line if the document has lines, and named ``"NAME (end)"``.

    Both sides are sorted by name and neither is ever empty. Raises DataError when there is too little
    text to divide, ValueError unless 0 < fraction < 1 and the names differ.

    >>> poems = [Document(name=f"{i}.txt", text=f"Poem number {i}.\n") for i in range(100)]
    >>> train, validation = split_documents(poems, fraction=0.1, seed=0)
    >>> len(train), len(validation)
    (90, 10)
    >>> book = Document(name="book.txt", text="".join(f"line {i}\n" for i in range(10, 30)))
    >>> [part.text for part in split_documents([book], fraction=0.1, seed=0)[1]]
    ['line 28\nline 29\n']
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split_documents: fraction must be between 0 and 1, got {fraction}; 0.05 is usual")
    _refuse_equal_names(documents)
    total = sum(len(document.text) for document in documents)
    chosen = _whole_documents(documents, fraction * total, seed)
    if 2 * sum(len(document.text) for document in chosen) < fraction * total:
        train, validation = _ends(documents, fraction)
    else:
        names = {document.name for document in chosen}
        train, validation = [d for d in documents if d.name not in names], chosen
    if not train or not validation:
        raise DataError(
            f"split_documents: {len(documents)} documents with {total} characters in total cannot be divided "
            "into training and validation text; name more text"
        )
    return _sort(train), _sort(validation)


def _refuse_equal_names(documents: Sequence[Document]) -> None:
    name, count = Counter(document.name for document in documents).most_common(1)[0] if documents else ("", 0)
    if count > 1:
        raise ValueError(
            f"split_documents: {count} documents are named {name!r}, and the name decides on the side of the "
            "split; give each its own name"
        )


def _whole_documents(documents: Sequence[Document], room: float, seed: int) -> list[Document]:
    """Take documents (copies of one text together) in the order of their hashes while they fit."""
    copies: dict[str, list[Document]] = {}
    for document in _sort(documents):
        copies.setdefault(document.text, []).append(document)
    groups = sorted(copies.values(), key=lambda group: rank(group[0].name, seed))
    sizes = [sum(len(document.text) for document in group) for group in groups]
    return [document for i in those_that_fit(sizes, room) for document in groups[i]]


def those_that_fit(sizes: Iterable[int], room: float) -> list[int]:
    """Which of these in turn are taken while they fit; none that is empty."""
    chosen: list[int] = []
    for i, size in enumerate(sizes):
        if 0 < size <= room:
            chosen.append(i)
            room -= size
    return chosen


def rank(name: str, seed: int) -> bytes:
    """The hash by which documents are put into an order."""
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", errors="surrogateescape")).digest()


def _ends(documents: Sequence[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    train, validation = [], []
    for document in documents:
        cut = _cut(document.text, fraction)
        train.append(Document(name=document.name, text=document.text[:cut]))
        if cut < len(document.text):
            validation.append(Document(name=f"{document.name} (end)", text=document.text[cut:]))
    return train, validation


def _cut(text: str, fraction: float) -> int:
    """Where the last ``fraction`` of a text begins: at the nearest line, unless none is near."""
    if len(text) < 2:
        return len(text)
    cut = cut_at(len(text), fraction)
    return at_line(cut, (text.rfind("\n", 0, cut) + 1, text.find("\n", cut) + 1), len(text), fraction)


def cut_at(length: int, fraction: float) -> int:
    """Where the last ``fraction`` of at least two characters begins, whatever stands there."""
    return min(max(round(length * (1 - fraction)), 1), length - 1)


def at_line(cut: int, lines: tuple[int, int], length: int, fraction: float) -> int:
    """The nearer of the ``lines`` that begin before and behind ``cut`` (0: there is none), unless both are far."""
    line = min((i for i in lines if 0 < i < length), key=lambda i: abs(i - cut), default=cut)
    return line if abs(line - cut) <= fraction * length / 2 else cut


def _sort(documents: Iterable[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: document.name)
