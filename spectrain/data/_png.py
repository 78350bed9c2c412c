"""Folders of PNG files: every picture is taken as it looks, or refused by name."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectrain._extras import wanted_by
from spectrain.data._text.document import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_OTHERS = frozenset((".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"))


def read_pngs(folder: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Levels in [-1, 1] of all PNG files, ``(count, size, size)`` or with colours last; their classes and the names.

    Subfolders are classes; without any there is one. What begins with a dot, as editors and archives leave it, is not
    looked at. Grey pictures of 16 bits keep them.

    Raises ``DataError`` where there is none, for a subfolder without any, for pictures of other formats, for what is
    damaged, not opaque, not a square of the size and kind of the first; ``ModuleNotFoundError`` without Pillow.
    """
    files = _files(folder)
    arrays: list[np.ndarray] = []
    for path in files:
        array = _levels(path)
        first = arrays[0] if arrays else array
        if array.shape != first.shape or array.shape[0] != array.shape[1]:
            raise DataError(
                f"pictures must be squares of one size and kind: {path} is {array.shape}, the first ({files[0]}) "
                f"{first.shape}. Resize them."
            )
        arrays.append(array)
    of = [_class(path, folder) for path in files]
    names = sorted(set(of))
    return np.stack(arrays), np.array([names.index(name) for name in of], dtype=np.int64), tuple(names)


def _files(folder: Path) -> list[Path]:
    """The PNG files, in order."""
    inside = (path for path in sorted(folder.rglob("*")) if not _hidden(path, folder))
    files = [path for path in inside if path.is_file()]
    found = [path for path in files if path.suffix.lower() == ".png"]
    if other := next((path for path in files if path.suffix.lower() in _OTHERS), None):
        raise DataError(f"{other} is no PNG, and would be left out. Convert it, or take it away.")
    if not found:
        raise DataError(f"{folder} holds neither PNG files nor MNIST's train-images-idx3-ubyte.")
    classes = {_class(path, folder) for path in found}
    parts = sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path, folder))
    if classes != {""} and (empty := next((part for part in parts if part.name not in classes), None)):
        raise DataError(f"{empty} is a class without a PNG file. Give it some, or remove the folder.")
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _class(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _levels(path: Path) -> np.ndarray:
    with wanted_by("reading PNG files"):
        from PIL import Image, UnidentifiedImageError
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):  # convert("L") would cut all above 255 off
                return np.asarray(picture).astype(np.float32) / 32767.5 - 1
            _check_opaque(picture, path)
            grey = picture.mode in ("1", "L", "LA")
            return np.asarray(picture.convert("L" if grey else "RGB"), np.float32) / 127.5 - 1
    except DataError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is not a PNG, or damaged: {error}.") from None


def _check_opaque(picture: "Image", path: Path) -> None:
    """A transparent pixel looks like what is behind it, and its own colour is anything."""
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path} has transparent pixels, whose colour means nothing. Lay it on a background.")
