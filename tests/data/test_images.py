"""Pictures from files: what is read is what was written, and what is wrong is named."""

import gzip
import struct

import numpy as np
import pytest
import torch

from spectrain import data

draw = np.random.default_rng(0)
PIXELS = draw.integers(0, 256, (6, 4, 4), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 0, 1, 2], dtype=np.uint8)


def idx(array, kind=8):
    return struct.pack(f">2xBB{array.ndim}I", kind, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, *, packed, pixels=PIXELS, labels=LABELS, kind=8):
    for stem, array in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        raw = idx(array, kind)
        path = folder / (f"{stem}.gz" if packed else stem)
        path.write_bytes(gzip.compress(raw) if packed else raw)
    return folder


def assert_what_was_written(images):
    assert torch.equal(((images.pixels[:, 0] + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(PIXELS))
    assert images.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_mnists_kind(tmp_path, packed):
    images = data.read_images([write_idx(tmp_path, packed=packed)])
    assert_what_was_written(images)
    assert images.classes == ("0", "1", "2")


def test_folders_of_pngs(tmp_path):
    picture = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for i in (3, 0, 5, 1, 4, 2):
        (tmp_path / "abc"[LABELS[i]]).mkdir(exist_ok=True)
        picture.fromarray(PIXELS[i]).save(tmp_path / "abc"[LABELS[i]] / f"{i}.png")
    images = data.read_images([tmp_path])
    assert images.classes == ("a", "b", "c")
    order = [i for label in range(3) for i in range(6) if LABELS[i] == label]
    assert torch.equal(((images.pixels[:, 0] + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(PIXELS[order]))
    picture.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a" / "9.png")
    with pytest.raises(data.DataError, match=r"squares of one size and kind.*9\.png is \(4, 4, 3\)"):
        data.read_images([tmp_path])
    (tmp_path / "a" / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(data.DataError, match=r"9\.png is not a PNG, or damaged"):
        data.read_images([tmp_path])


def write_png(path, array, **how):
    picture = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.fromarray(array).save(path, "PNG", **how)


def test_grey_pictures_of_16_bits_keep_them(tmp_path):
    levels = draw.integers(0, 65536, (4, 4), dtype=np.uint16)
    write_png(tmp_path / "0.PNG", levels)
    pixels = data.read_images([tmp_path]).pixels[0, 0]
    assert torch.equal(((pixels.double() + 1) / 2 * 65535).round(), torch.from_numpy(levels.astype(np.float64)))


def test_what_begins_with_a_dot_is_not_looked_at(tmp_path):
    for name in ("a/0.png", "b/1.png", ".cache/2.png", "a/._0.png", "b/.old/3.png"):
        write_png(tmp_path / name, PIXELS[0])
    images = data.read_images([tmp_path])
    assert (len(images), images.classes) == (2, ("a", "b"))


def test_what_cannot_be_taken_as_it_looks_is_refused(tmp_path):
    write_png(tmp_path / "a" / "0.png", PIXELS[0])
    (tmp_path / "b").mkdir()
    with pytest.raises(data.DataError, match=r"b is a class without a PNG file"):
        data.read_images([tmp_path])
    (tmp_path / "b" / "1.jpg").write_bytes(b"")
    with pytest.raises(data.DataError, match=r"1\.jpg is no PNG, and would be left out"):
        data.read_images([tmp_path])
    (tmp_path / "b" / "1.jpg").unlink()
    clear = np.full((4, 4, 4), 255, np.uint8)
    write_png(tmp_path / "b" / "1.png", clear)
    write_png(tmp_path / "a" / "0.png", clear[..., :3])
    assert data.read_images([tmp_path]).pixels.unique().tolist() == [1]  # opaque, all white
    clear[1, 2, 3] = 0
    write_png(tmp_path / "b" / "1.png", clear)
    with pytest.raises(data.DataError, match=r"1\.png has transparent pixels"):
        data.read_images([tmp_path])


def test_a_digest_changes_with_a_pixel_and_with_a_label(tmp_path):
    images = data.read_images([write_idx(tmp_path, packed=False)])
    other = images.pixels.clone()
    other[0, 0, 0, 0] += 0.1
    prints = {
        images.fingerprint,
        data.images.Images(other, images.labels, images.classes, "").fingerprint,
        data.images.Images(images.pixels, images.labels.flip(0), images.classes, "").fingerprint,
    }
    assert len(prints) == 3


BROKEN = {
    "cut": (lambda f: (f / "train-images-idx3-ubyte").write_bytes(idx(PIXELS)[:-1]), "not a file of MNIST's kind"),
    "no labels": (lambda f: (f / "train-labels-idx1-ubyte").unlink(), r"has no train-labels-idx1-ubyte\(\.gz\)"),
    "other count": (lambda f: write_idx(f, packed=False, labels=LABELS[:3]), "do not fit"),
    "oblong": (lambda f: write_idx(f, packed=False, pixels=PIXELS[:, :3]), "do not fit"),
    "floats": (lambda f: write_idx(f, packed=False, kind=13), "only unsigned bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_named(tmp_path, name):
    write_idx(tmp_path, packed=False)
    BROKEN[name][0](tmp_path)
    with pytest.raises(data.DataError, match=BROKEN[name][1]):
        data.read_images([tmp_path])


NPZ = {
    "bytes": ({"images": PIXELS, "labels": LABELS}, ("0", "1", "2")),
    "numbers": ({"images": PIXELS / 255, "labels": LABELS.astype(np.int64) - 1}, ("-1", "0", "1")),
    "one channel": ({"images": PIXELS[..., None], "labels": np.array(["a", "c", "b", "a", "b", "c"])}, ("a", "b", "c")),
}


@pytest.mark.parametrize("name", NPZ)
def test_arrays_of_numpy(tmp_path, name):
    arrays, classes = NPZ[name]
    np.savez(tmp_path / "a.npz", **arrays)
    images = data.read_images([tmp_path / "a.npz"])
    assert_what_was_written(images)
    assert images.classes == classes
    np.savez_compressed(tmp_path / "c.npz", images=np.stack([PIXELS] * 3, axis=-1), labels=LABELS)
    assert data.read_images([tmp_path / "c.npz"]).pixels.shape == (6, 3, 4, 4)


def with_nan(value):
    changed = PIXELS / 255
    changed[4, 1, 2] = value
    return changed


BAD_NPZ = {
    "no labels": ({"images": PIXELS}, "has no 'labels'; write it by numpy.savez"),
    "no images": ({"x": PIXELS, "labels": LABELS}, "has no 'images'"),
    "other counts": ({"images": PIXELS, "labels": LABELS[:5]}, r"\(6, 4, 4\) and labels of shape \(5,\)"),
    "oblong": ({"images": PIXELS[:, :3], "labels": LABELS}, "do not fit; images are"),
    "two channels": ({"images": np.stack([PIXELS] * 2, axis=-1), "labels": LABELS}, "do not fit"),
    "none": ({"images": PIXELS[:0], "labels": LABELS[:0]}, "do not fit"),
    "labels of halves": ({"images": PIXELS, "labels": LABELS / 2}, "whole numbers or words"),
    "NaN": ({"images": with_nan(np.nan), "labels": LABELS}, "picture 4 has nan"),
    "infinite": ({"images": with_nan(np.inf), "labels": LABELS}, "picture 4 has inf"),
    "levels as numbers": ({"images": PIXELS.astype(float), "labels": LABELS}, "from 0 to 1, and picture 0 has"),
    "wide integers": ({"images": PIXELS.astype(np.int64), "labels": LABELS}, "got int64"),
    "sizes that differ": (
        {"images": np.array([np.zeros((4, 4)), np.zeros((5, 5))], dtype=object), "labels": LABELS[:2]},
        "all pictures of one size",
    ),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_arrays_that_are_no_labelled_pictures_are_named(tmp_path, name):
    arrays, message = BAD_NPZ[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(data.DataError, match=r"a\.npz.*" + message):
        data.read_images([tmp_path / "a.npz"])


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_named(tmp_path, raw):
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(data.DataError, match=r"a\.npz: 'images' cannot be read"):
        data.read_images([tmp_path / "a.npz"])
    with pytest.raises(data.DataError, match=r"b\.npz cannot be read: No such file"):
        data.read_images([tmp_path / "b.npz"])


def test_nothing_there(tmp_path):
    with pytest.raises(data.DataError, match="neither PNG files nor MNIST"):
        data.read_images([tmp_path])
    with pytest.raises(TypeError, match=r"write \['digits'\]"):
        data.read_images("digits")


@pytest.mark.parametrize("batch", [3, 7, 16])
def test_every_example_once_an_epoch_whatever_the_ranks(batch):
    whole = data.streams.IndexStream(10, batch=batch, seed=4)
    numbers = torch.cat([whole.batch(t) for t in range(10)])
    for epoch in numbers[: len(numbers) // 10 * 10].view(-1, 10):
        assert epoch.sort().values.tolist() == list(range(10))
    assert not torch.equal(numbers[:10], numbers[10:20])
    ranks = [data.streams.IndexStream(10, batch=batch, seed=4, rank=r, world=batch) for r in range(batch)]
    assert torch.equal(torch.cat([rank.batch(5) for rank in ranks]), whole.batch(5))


@pytest.mark.parametrize("bad", [{"examples": 0}, {"batch": 0}, {"rank": 2, "world": 2}, {"world": 3}])
def test_sizes_that_do_not_fit(bad):
    with pytest.raises(ValueError, match="IndexStream"):
        data.streams.IndexStream(**{"examples": 10, "batch": 4, "seed": 0, **bad})
