"""The loop knows nothing of language: another job goes through it, is judged, stopped and resumed as exactly."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from spectrain import train
from spectrain.train._run import jobs as _jobs
from spectrain.train._run import recorded as _recorded
from spectrain.train._run.config import RunConfig
from spectrain.train._run.job import AbstractJob, Judged, Measured
from spectrain.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class LineConfig(RunConfig):
    """Fit a line."""

    job: ClassVar[str] = "line"

    def derive(self):
        return self, []

    def products(self):
        return (4, 4, 4), (1, 4, 4)


class LineJob(AbstractJob[LineConfig]):
    """Recover a matrix from products with it, batch by batch."""

    units = ("examples",)
    fingerprint = "no files"

    def __init__(self, config, folder, *, resuming):
        self.config, self.truth = config, torch.eye(3)
        self.updates = 0

    def about_data(self):
        return ["lines"]

    def keep(self, folder):
        (folder.path / "kept.txt").write_text("kept")

    def build_model(self, config):
        model = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.zeros_(model.weight)
        return model

    def accumulate(self, step):
        x = torch.randn(self.config.batch_size, 3, generator=torch.Generator().manual_seed(step))
        loss = (self.model(x) - x @ self.truth).square().mean()
        loss.backward()
        return Measured(loss.item(), {"examples": len(x)}, {"gap": 1.0}, words="a line")

    def after_step(self, lr_factor):
        self.updates += 1
        return {"after": 1.0}

    def first_bad_tensor(self, step):
        return "the line is not finite"

    def validate(self, *, whole):
        return Judged((self.model.weight - self.truth).norm().item(), {"examples": 0}, {"whole": float(whole)}, "seen")

    def sample(self, folder, *, step):
        with open(folder.samples, "a", encoding="utf-8") as file:
            file.write(f"=== step {step}\n")

    def summary(self, judged, *, steps):
        return {"gap": judged.loss}, ["done"]

    def matrices(self):
        return {self.model.weight}

    def watch_list(self):
        return ["weight"]

    def cost(self):
        return "nothing"


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """One line in the table is all that a job needs besides its two classes."""
    monkeypatch.setitem(_jobs.JOBS, "line", _jobs.Job(f"{__name__}:LineConfig", f"{__name__}:LineJob"))


def configuration(out, **changes):
    fixed = {"max_steps": 12, "warmup": 1, "lr": 0.05, "eval_interval": 4, "save_interval": 4, "spectrum_interval": 6,
             "optimizer": "adamw", "threads": 1, "autocast": "off", "muon_dtype": "float32", "device": "cpu",
             "resume": "auto"}  # fmt: skip
    return LineConfig(**{**fixed, **changes}, out_dir=str(out))


def rows(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


def test_another_job_writes_its_own_units_figures_and_files(tmp_path):
    run = train.train(configuration(tmp_path / "run"))
    steps = [row for row in rows(run) if row["kind"] == "step"]
    assert [row["examples"] for row in steps] == [16 * (i + 1) for i in range(12)]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(row["gap"] == row["after"] == 1.0 and "tokens" not in row for row in steps)
    assert (run / "kept.txt").exists()
    assert json.loads((run / "summary.json").read_text())["gap"] < 3**0.5
    assert json.loads((run / "config.json").read_text())["job"] == "line"


def test_it_resumes_as_exactly(tmp_path):
    whole = train.train(configuration(tmp_path / "whole"))

    class Bomb(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(train.runs.StopRequest):
        train.train(configuration(tmp_path / "cut"), progress=Bomb())
    cut = train.train(configuration(tmp_path / "cut"))
    assert rows(cut) == rows(whole)
    assert rows(cut) != rows(train.train(configuration(tmp_path / "other", lr=0.04)))


def test_the_run_of_another_job_is_not_gone_on_with(tmp_path):
    train.train(configuration(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"is of a run of 'spectrain line', not of 'spectrain train'"):
        train.train(TrainConfig(out_dir=str(tmp_path / "run"), resume="auto"))
    with pytest.raises(ValueError, match="line', not of"):
        train.load_run(tmp_path / "run")


def test_a_job_nobody_knows_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"job": "sing"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"unknown job 'sing'; known jobs: .*draw, embed, line, own, train\."):
        _recorded.read_any(tmp_path / "config.json")


@pytest.mark.parametrize("name", _jobs.JOBS)
def test_a_line_of_the_table_names_a_configuration_and_the_job_that_takes_it(name):
    config, job = _jobs.config_class(name), _jobs.job_class(name)
    assert config.job == name
    assert job.__orig_bases__ == (AbstractJob[config],)
    assert issubclass(config, RunConfig)
    assert not job.__abstractmethods__


def test_configurations_of_all_jobs_load_no_torch():
    program = "import sys\nfrom spectrain.train._run import jobs\nfor name in jobs.JOBS: jobs.config_class(name)\n"
    subprocess.run([sys.executable, "-c", program + "assert 'torch' not in sys.modules"], check=True)
