"""What a text is made of, and the one error that bad data raises."""

from collections.abc import Iterator
from dataclasses import dataclass


class DataError(ValueError):
    """The data that was named cannot be used; the message says what it is and what to do instead."""


@dataclass(frozen=True, slots=True)
class Document:
    r"""One text with a name: the unit of splitting, and what end-of-text separates.

    The name decides on which side of the split the document falls, so it does not depend on the
    machine: names are relative to the folder that was given.

    >>> Document(name="verse/autumn.txt", text="The leaves are falling.\n").name
    'verse/autumn.txt'
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A document read as it comes, for text larger than memory; read it before the next one is asked for.

    What is wrong in a file is raised where its parts are read, and names the file.
    """

    name: str
    parts: Iterator[str]
