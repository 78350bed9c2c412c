"""Programs that are started as users start them: once a process, by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def torchrun(tmp_path):
    """Run a program of two processes in an empty folder, and return what it printed; ``before`` runs ahead of it."""

    def run(program, *, before=""):
        (tmp_path / "program.py").write_text(before + program, encoding="utf-8")
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
        places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def accelerate_on_cpu():
    """Lines that let accelerate shard on a CPU: it asks for an accelerator, and its own code runs without one."""
    return """
import accelerate
from accelerate.state import PartialState
from accelerate.utils import DistributedType
_made = accelerate.Accelerator.__init__
def _make(self, *, fsdp_plugin):
    _made(self, cpu=True, fsdp_plugin=fsdp_plugin)
    PartialState._shared_state["distributed_type"] = self.state.distributed_type = DistributedType.FSDP
    self.state.fsdp_plugin = fsdp_plugin
accelerate.Accelerator.__init__ = _make
"""
