"""``--compile``: the run of before up to rounding, the same bits after a resume, every held-out token once."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch._inductor import cpp_builder

from spectrain import train
from spectrain.train._jobs import samples
from spectrain.train.config import TrainConfig

from .test_run import assert_same_run, rows

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which Inductor compiles with")


SCRIPT = """
import sys, json, torch
from spectrain import train
from spectrain.train.config import TrainConfig
from spectrain.train._run.progress import Progress

class Stop(Progress):
    def step(self, step, *_):
        if step == 6:
            raise KeyboardInterrupt

torch._dynamo.config.recompile_limit = 2  # one graph to learn, one to judge, for all three runs; a third would raise
arguments, out = json.loads(sys.argv[1]), sys.argv[2]
arguments["data"] = tuple(arguments["data"])
train.train(TrainConfig(**arguments, out_dir=out + "/whole"))
try:
    train.train(TrainConfig(**arguments, out_dir=out + "/half"), progress=Stop(interval=1))
except KeyboardInterrupt:
    pass
train.train(TrainConfig(**arguments, out_dir=out + "/half", resume="auto"))

"""


@pytest.mark.full
@needs_compiler
def test_a_compiled_run_is_the_same_up_to_rounding_and_resumes_with_its_bits(tiny, tmp_path):
    """In a process of its own: the checks of types that tests put into every function are nothing to compile."""
    tiny = {**tiny, "micro_batch_size": 2}
    eager = train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "eager")))
    call = [sys.executable, "-c", SCRIPT, json.dumps({**tiny, "compile": True}), str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    for ours, plain in zip(rows(tmp_path / "whole"), rows(eager), strict=True):
        if ours["kind"] in ("step", "eval"):
            assert ours["loss"] == pytest.approx(plain["loss"], rel=1e-4)
            assert (ours["tokens"], ours["bytes"]) == (plain["tokens"], plain["bytes"])
    assert_same_run(tmp_path / "half", tmp_path / "whole")


def test_rows_that_fill_up_a_batch_do_not_count():
    inputs, targets = samples.fill_rows(3, torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long))
    assert inputs.tolist() == [[1] * 4, [1] * 4, [0] * 4]
    assert targets.tolist() == [[1] * 4, [1] * 4, [-100] * 4]


def test_a_missing_compiler_is_said(tiny, tmp_path, monkeypatch):
    def nothing():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", nothing)
    samples.compiled_likelihood.cache_clear()
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        train.train(TrainConfig(**tiny, compile=True, out_dir=str(tmp_path / "run")))


def test_experts_are_not_compiled(tiny):
    with pytest.raises(ValueError, match="--compile must be left out with --moe-experts"):
        dataclasses.replace(TrainConfig(**tiny), compile=True, moe_experts=4)
