"""``spectrain plan``: figures of every rank, and clear refusals."""

import json

import pytest

from spectrain.cli._main import main

SMALL = ["plan", "--depth", "2", "--vocabulary", "64", "--mesh", "2", "4"]


def test_it_prints_bytes_operations_and_balance_of_every_rank(capsys, tmp_path):
    assert main([*SMALL, "--matrices", "--out", str(tmp_path / "plan.json")]) == 0
    said = capsys.readouterr().out
    assert "14 matrices on 8 ranks" in said
    for words in ("GFLOP", "MB sent", "MB received", "balance of operations", "blocks.1.feed_forward.down.weight"):
        assert words in said
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [entry["rank"] for entry in plan["ranks"]] == list(range(8))
    assert sum(e["sent"] for e in plan["ranks"]) == pytest.approx(sum(e["received"] for e in plan["ranks"]))
    # each of the 5 steps takes at least the product with the Gram matrix, 2 k^2 l, and at most 2 k^2 (2 l + k)
    shapes = 2 * [(128, 128)] * 4 + 2 * [(128, 384)] * 3
    most = 5 * sum(2 * k * k * (2 * long + k) for k, long in shapes)
    assert most / 2 < sum(row["flops"] for row in plan["rows"]) <= most


def test_a_slow_network_changes_the_plan(capsys):
    main([*SMALL, "--flops", "1e8", "--latency", "0", "--bandwidth", "1e12"])
    assert "owner" in capsys.readouterr().out
    main([*SMALL, "--flops", "1e18", "--latency", "1"])
    assert "14 replicated" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--mesh", "0"], ["--mesh", "2", "--cuts", "0", "1"], ["--bandwidth", "0"]])
def test_impossible_meshes_and_machines_are_refused(capsys, wrong):
    assert main(["plan", "--depth", "1", *wrong]) == 2
    assert "got" in capsys.readouterr().err
