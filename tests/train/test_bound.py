"""``--bound`` in a run: held by its weights as an SVD sees them, resumed bit for bit, refused where it cannot be."""

import math

import pytest
import safetensors.torch
import torch

from spectrain import optim, report, train
from spectrain.report._sections.norms import norms
from spectrain.train._jobs.classify_config import ClassifyConfig
from spectrain.train._mesh.layout import layout
from spectrain.train._run import prepare
from spectrain.train._run.first_weights import check_bound
from spectrain.train.config import TrainConfig

from .test_run import assert_same_run, interrupted, rows

LOUD = {"lr": 0.15, "weight_decay": 0.0}


def ratios(run):
    """The largest singular value of each matrix of the block over sqrt(out / in), by LAPACK in float64."""
    weights = safetensors.torch.load_file(run / "model.safetensors")
    matrices = {name: W.double() for name, W in weights.items() if name.startswith("blocks") and W.ndim == 2}
    return {name: float(torch.linalg.matrix_norm(W, 2)) / math.sqrt(W.shape[0] / W.shape[1])
            for name, W in matrices.items()}  # fmt: skip


@pytest.fixture(scope="module")
def trained(trained_once):
    """A run for each bound."""
    return lambda tiny, **flags: trained_once({**tiny, **LOUD, **flags})


@pytest.mark.parametrize(("optimizer", "by"), [("muon", "post-clip"), ("muon", "pre-decay"), ("normuon", "post-clip")])
def test_weights_stay_within_the_bound_and_without_it_do_not(tiny, trained, optimizer, by):
    found = ratios(trained(tiny, optimizer=optimizer, bound=2.6, bound_by=by))
    free = ratios(trained(tiny, optimizer=optimizer))
    slack = 1e-6 if by == "post-clip" else 0.02  # five steps of msign have singular values of up to 1.02
    assert max(found.values()) <= 2.6 * (1 + slack)
    assert max(free.values()) > 1.3 * 2.6


@pytest.mark.parametrize("by", ["post-clip", "pre-decay"])
def test_stopping_and_resuming_changes_nothing(tiny, trained, tmp_path, by):
    flags = {"bound": 2.6, "bound_by": by}
    interrupted({**tiny, **LOUD, **flags}, tmp_path / "run", 7)
    again = TrainConfig(**{**tiny, **LOUD, **flags}, out_dir=str(tmp_path / "run"), resume="auto")
    whole = trained(tiny, optimizer="muon", **flags)
    assert_same_run(train.train(again), whole)
    with pytest.raises(AssertionError):
        assert_same_run(trained(tiny, optimizer="muon"), whole)


def test_a_bound_below_the_first_weights_is_refused_by_name_and_leaves_nothing(tiny, tmp_path):
    with pytest.raises(
        ValueError, match=r"--bound 1.2 is below .*blocks\.0\.attention\.value.*Give at least --bound"
    ) as e:
        train.train(TrainConfig(**tiny, bound=1.2, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
    least = float(str(e.value).split("--bound ")[-1].rstrip("."))
    train.train(TrainConfig(**{**tiny, "max_steps": 1}, bound=least, out_dir=str(tmp_path / "run")))


def test_a_bound_where_muon_moves_nothing_is_refused():
    table = optim.Muon(torch.nn.Embedding(9, 4), lr=0.1, bound=3.0)
    with pytest.raises(ValueError, match="--bound 3 must be left out: Muon moves no matrix of this model"):
        check_bound(table, 3.0)
    check_bound(table, None)
    check_bound(optim.Muon(torch.nn.Linear(4, 4), lr=0.1, bound=9.0, heads=[]), 9.0)


def test_weights_that_were_only_drawn_do_not_count_when_a_run_goes_on(tiny, tmp_path, monkeypatch):
    flags = {**tiny, **LOUD, "bound": 2.6}
    interrupted(flags, tmp_path / "run", 7)
    monkeypatch.setattr(prepare, "check_bound", lambda *_: pytest.fail("a checkpoint has other weights"))
    train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run"), resume="auto"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"bound": 0.0}, "--bound must be positive and finite"),
        ({"bound": math.nan}, "--bound must be positive and finite"),
        ({"bound": math.inf}, "--bound must be positive and finite"),
        ({"bound": 3.0, "optimizer": "adamw"}, "--bound must be left out with --optimizer adamw"),
        ({"bound": 3.0, "optimizer": "torch-muon"}, "--bound must be left out with --optimizer torch-muon"),
        ({"bound_by": "pre-decay"}, "--bound-by must be left out without --bound"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said):
    for kind in (TrainConfig, ClassifyConfig):
        with pytest.raises(ValueError, match=said):
            kind(**flags)


def test_ranks_keep_the_order_of_one_process_or_say_so():
    """Spectral decay looks at the weights before pre-decay changes them; over ranks that would come after."""
    two = layout(None, tensor=1, ranks=2)
    with pytest.raises(ValueError, match="--bound-by must be post-clip under torchrun with --decay spectral"):
        TrainConfig(bound=3.0, bound_by="pre-decay", decay="spectral").check_ranks(two)
    TrainConfig(bound=3.0, bound_by="pre-decay").check_ranks(two)
    TrainConfig(bound=3.0, decay="spectral").check_ranks(two)


def test_the_report_draws_the_largest_singular_value_and_the_bound(tiny, trained):
    runs = [
        report.read(trained(tiny, optimizer="muon", **more)) for more in ({}, {"bound": 2.6, "bound_by": "post-clip"})
    ]
    fig = norms(runs)
    assert sorted(fig.views) == [(0,), (1,)]
    for view, run in zip(fig.views.values(), runs, strict=True):
        ends = {trace["name"]: trace["y"][-1] for trace in view.traces}
        found = ratios(run.path)
        assert {name + ".weight" for name in ends if name != "the bound"} == set(found)
        assert all(
            ends[name.removesuffix(".weight")] == pytest.approx(value, rel=1e-5) for name, value in found.items()
        )
        assert ends.get("the bound") == run.config["bound"]
    assert "of a bound of 2.6" in fig.views[1,].title
    drawn = [max(trace["y"][-1] for trace in view.traces) for view in fig.views.values()]
    assert drawn[0] > drawn[1]
    assert norms([report.read(trained(tiny, optimizer="muon"))]).views.keys() == {()}


def test_rows_of_earlier_versions_have_no_such_figure(tiny, trained):
    run = report.read(trained(tiny, optimizer="muon"))
    for row in run.spectra:
        del row["weight_norm_ratio"]
    assert norms([run]) is None
    assert any("polar_error" in row for row in rows(run.path))
