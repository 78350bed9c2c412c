"""Pictures with labels: scikit-learn's digits, files in the format of MNIST, arrays of NumPy, folders of PNGs."""

import hashlib
import io
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from spectrain._extras import wanted_by
from spectrain.data._png import read_pngs
from spectrain.data._text.document import DataError
from spectrain.data._text.open import UnusableFileError, chunks, refuse_nothing

FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Images:
    """Square pictures in [-1, 1], channels first, with a class each."""

    pixels: Float32[Tensor, "count channels size size"]
    labels: Int64[Tensor, " count"]
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def fingerprint(self) -> str:
        """A digest of pixels and labels."""
        digest = hashlib.sha256(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    def at(self, index: Tensor) -> "Images":
        """The pictures with these numbers."""
        return Images(self.pixels[index], self.labels[index], self.classes, self.source)


def read_images(paths: Sequence[str | Path] | None = None) -> Images:
    """Read pictures from ``paths``; ``None``: the 1,797 handwritten digits of 8 x 8 that scikit-learn ships.

    One path of these kinds:

    - ``"digits"`` or ``"fashion-mnist"`` (the files of Debian's package ``dataset-fashion-mnist``);
    - a folder with ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, also ``.gz``, as MNIST and its
      relatives are published;
    - a file ``.npz`` of ``numpy.savez(file, images=, labels=)``: ``images`` is ``(count, size, size)`` or ``(count,
      size, size, channels)`` with 1 or 3 channels, bytes or numbers in [0, 1]; ``labels`` are whole numbers or words;
    - a folder of PNG files, all of one square size: subfolders are classes; without any there is one class. Grey ones
      may have 16 bits. What begins with a dot is not looked at. Needs Pillow.

    Raises DataError for anything else: a file that is damaged, pictures of mixed or oblong size (naming the first),
    labels that are missing, counts that do not agree, NaN, nothing there, a class without a picture, pictures of other
    formats or not opaque; ModuleNotFoundError naming the extra where a package is missing.

    >>> images = read_images()
    >>> images.pixels.shape, len(images.classes), images.pixels.min().item(), images.pixels.max().item()
    (torch.Size([1797, 1, 8, 8]), 10, -1.0, 1.0)
    """
    if isinstance(paths, str | Path):
        raise TypeError(f"read_images takes a list of paths, got {paths!r}; write [{str(paths)!r}]")
    if paths is not None and len(paths) != 1:
        raise DataError(f"pictures come from one source, got {len(paths)}: {', '.join(map(str, paths)) or 'none'}.")
    refuse_nothing(paths[0] if paths else None)
    name = "digits" if paths is None else str(paths[0])
    if name == "digits":
        return _digits()
    folder = FASHION if name == "fashion-mnist" else Path(name)
    if folder.suffix == ".npz" and not folder.is_dir():
        return _npz(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder. Name one of PNG files or of MNIST's files, a file .npz, 'digits', or "
            "'fashion-mnist' (Debian package dataset-fashion-mnist)."
        )
    return _idx(folder) if _find(folder, "train-images-idx3-ubyte") else _of_pngs(folder)


def _digits() -> Images:
    with wanted_by("a run without --data, on the digits that scikit-learn ships,"):
        from sklearn.datasets import load_digits
    table = load_digits()
    pixels = torch.from_numpy(table.images.astype(np.float32))[:, None] / 8 - 1
    return Images(pixels, torch.from_numpy(table.target.astype(np.int64)), tuple("0123456789"), "scikit-learn's digits")


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.exists()), None)


def _idx(folder: Path) -> Images:
    images, labels = (_read_idx(folder, stem) for stem in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"))
    if (
        not labels.size
        or images.ndim != 3
        or labels.ndim != 1
        or len(images) != len(labels)
        or images.shape[1] != images.shape[2]
    ):
        raise DataError(f"{folder}: pictures of shape {images.shape} and labels of shape {labels.shape} do not fit.")
    pixels = torch.from_numpy(images.astype(np.float32))[:, None] / 127.5 - 1
    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)), names, str(folder))


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """An array in the format of MNIST: two zero bytes, a type, the number of dimensions, each as four bytes."""
    path = _find(folder, stem)
    if path is None:
        raise DataError(f"{folder} has no {stem}(.gz) beside the other file.")
    try:
        raw = b"".join(chunks(path))
        kind, rank = struct.unpack(">2xBB", raw[:4])
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        body = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)
    except UnusableFileError:
        raise
    except (struct.error, ValueError) as error:
        raise DataError(f"{path} is not a file of MNIST's kind, or damaged: {error}.") from None
    if kind != 8:
        raise DataError(f"{path} holds numbers of type {kind:#x}; only unsigned bytes (0x8) are pictures.")
    return body


def _npz(path: Path) -> Images:
    file = io.BytesIO(b"".join(chunks(path)))
    images, labels = (_array(path, file, name) for name in ("images", "labels"))
    square = images.ndim in (3, 4) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (1,), (3,))
    if not (images.size and square) or labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{path}: images of shape {images.shape} and labels of shape {labels.shape} and type {labels.dtype} do not "
            "fit; images are (count, size, size) or (count, size, size, 1 or 3), labels whole numbers or words."
        )
    names, numbers = np.unique(labels, return_inverse=True)
    pixels = _channels_first(_levels(path, images))
    return Images(pixels, torch.from_numpy(numbers.astype(np.int64)), tuple(map(str, names)), str(path))


def _array(path: Path, file: io.BytesIO, name: str) -> np.ndarray:
    """An array of a file of NumPy's; never one of pickled objects, which may run code."""
    file.seek(0)
    try:
        with np.load(file, allow_pickle=False) as held:
            found: np.ndarray = held[name]
            return found
    except KeyError:
        raise DataError(f"{path} has no {name!r}; write it by numpy.savez(file, images=..., labels=...).") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: {name!r} cannot be read ({error}); it must be one array of numbers, all pictures of one size."
        ) from None


def _levels(path: Path, images: np.ndarray) -> np.ndarray:
    """Bytes, or numbers in [0, 1], as numbers in [-1, 1]."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 127.5 - 1
    if images.dtype.kind != "f":
        raise DataError(f"{path}: images must be bytes (uint8) or numbers in [0, 1], got {images.dtype}.")
    good = (images >= 0) & (images <= 1)  # NaN is neither
    if not good.all():
        i = int((~good).reshape(len(images), -1).any(axis=1).argmax())
        value = images[i][~good[i]].flat[0]
        raise DataError(f"{path}: pixels must be from 0 to 1, and picture {i} has {value}; divide them, or give bytes.")
    return images.astype(np.float32) * 2 - 1


def _of_pngs(folder: Path) -> Images:
    levels, classes, names = read_pngs(folder)
    return Images(_channels_first(levels), torch.from_numpy(classes), names, str(folder))


def _channels_first(levels: np.ndarray) -> Tensor:
    """Pictures without channels, or with channels last, as a tensor with channels first."""
    pixels = torch.from_numpy(levels)
    return pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
