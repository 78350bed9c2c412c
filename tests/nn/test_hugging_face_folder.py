"""A folder of weights from somebody else: it names files of its own, or is refused."""

import json
import os

import pytest
import safetensors.torch
import torch

from spectrain import nn

SIZES = {"vocabulary": 7, "width": 8, "depth": 1, "heads": 2, "embedding_norm": False}


@pytest.fixture
def sharded(tmp_path):
    """A model in two files with an index, and a file beside the folder that is not its own."""
    folder = nn.to_hugging_face(nn.LanguageModel(**SIZES), tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in parts.items():
        safetensors.torch.save_file({name: weights[name] for name in inside}, folder / file)
    index(folder, {name: file for file, inside in parts.items() for name in inside})
    safetensors.torch.save_file({name: weights[name] for name in names[1::2]}, tmp_path / "other.safetensors")
    return folder


def index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_of_plain_names_is_read(sharded):
    assert nn.from_hugging_face(sharded)(torch.tensor([[1, 2]])).isfinite().all()


OUT = ["../other.safetensors", "{tmp}/other.safetensors", "./../other.safetensors", "sub/x.safetensors", "..", "",
       "..\\other.safetensors", "C:other.safetensors", "a.bin", "a.safetensors\0", None, 5, ["a"]]  # fmt: skip


@pytest.mark.parametrize("name", OUT, ids=repr)
def test_names_of_other_folders_are_refused(sharded, tmp_path, name):
    name = name.format(tmp=tmp_path) if isinstance(name, str) else name
    found = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    index(sharded, {key: name if file == "b.safetensors" else file for key, file in found.items()})
    with pytest.raises(ValueError, match="weight_map") as caught:
        nn.from_hugging_face(sharded)
    assert "index.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000, "\xff"])
def test_an_index_that_is_none_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content, encoding="latin1")
    with pytest.raises(ValueError, match=r"index\.json holds no weight_map"):
        nn.from_hugging_face(sharded)


def test_links_out_of_the_folder_are_refused_and_those_of_the_hub_are_not(sharded, tmp_path):
    (sharded / "b.safetensors").unlink()
    (sharded / "b.safetensors").symlink_to(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors is a link to .*outside of the folder"):
        nn.from_hugging_face(sharded)
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "snapshots").mkdir()
    os.rename(tmp_path / "other.safetensors", tmp_path / "hub" / "blobs" / "0a1b")
    (sharded / "b.safetensors").unlink()
    (sharded / "b.safetensors").symlink_to("../../blobs/0a1b")
    moved = sharded.rename(tmp_path / "hub" / "snapshots" / "f00d")
    assert nn.from_hugging_face(moved)(torch.tensor([[1, 2]])).isfinite().all()


def test_a_file_that_is_cut_is_named(sharded):
    file = sharded / "a.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"a\.safetensors is no whole safetensors file"):
        nn.from_hugging_face(sharded)
