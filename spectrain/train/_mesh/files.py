"""Where the parts of several ranks stand in a checkpoint, and the digest of a file; loads nothing."""

import hashlib
from pathlib import Path

FOLDER = "shards"
"""The folder of the parts."""
INDEX = ".metadata"
"""The file in it that says which file holds which part of which tensor."""


def file_digest(file: Path) -> str:
    """SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
