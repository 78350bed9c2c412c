"""``spectrain plan``: figures of every rank, and clear refusals."""

import json

import pytest

from spectrain.cli._main import main

SMALL = ["plan", "--depth", "2", "--width", "128", "--vocabulary", "64", "--mesh", "2x4", "--kv-heads", "2"]


def test_it_prints_bytes_operations_and_balance_of_every_rank(capsys, tmp_path):
    assert main([*SMALL, "--matrices", "--out", str(tmp_path / "plan.json")]) == 0
    said = capsys.readouterr().out
    assert "14 matrices on 8 ranks" in said
    for words in ("GFLOP", "MB sent", "MB received", "balance of operations", "blocks.1.feed_forward.down.weight"):
        assert words in said
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [entry["rank"] for entry in plan["muon"]["ranks"]] == list(range(8))
    sent, received = (sum(e[way] for e in plan["muon"]["ranks"]) for way in ("sent", "received"))
    assert sent == pytest.approx(received)
    # each of the 5 steps takes at least the product with the Gram matrix, 2 k^2 l, and at most 2 k^2 (2 l + k)
    shapes = 2 * [(128, 128)] * 4 + 2 * [(128, 384)] * 3
    most = 5 * sum(2 * k * k * (2 * long + k) for k, long in shapes)
    assert most / 2 < sum(row["flops"] for row in plan["muon"]["rows"]) <= most
    assert (plan["mesh"], plan["tensor_parallel"]) == ("2x4", 1)


def test_the_flags_of_a_run_may_come_from_its_config(capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"job": "train", "depth": 1, "width": 64, "tokenizer": "bytes"}))
    assert main(["plan", "--config", str(tmp_path / "config.json"), "--mesh", "1x2", "--out", str(tmp_path / "p")]) == 0
    assert json.loads((tmp_path / "p").read_text())["ranks"] == 2
    assert "memory of a rank" in capsys.readouterr().out


def test_ranks_without_a_mesh_are_shown_every_mesh(capsys):
    flags = ["--width", "64", "--heads", "2", "--kv-heads", "1", "--tokenizer", "bytes"]
    assert main(["plan", "--depth", "1", *flags, "--ranks", "2"]) == 0
    said = capsys.readouterr().out
    assert "--tensor-parallel 2 does not divide --kv-heads 1" in said
    assert said.index("--mesh 1x2") < said.index("the one to take:")


@pytest.mark.parametrize("wrong", [["--mesh", "0"], ["--mesh", "2", "4"], ["--machine", "abacus"], ["--ranks", "x"]])
def test_impossible_meshes_and_machines_are_refused(capsys, wrong):
    assert main(["plan", "--depth", "1", *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wrong[0] in line or wrong[-1] in line
