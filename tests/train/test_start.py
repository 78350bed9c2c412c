"""The first step comes soon: what it does not need is not imported, and what is known is not computed."""

import os
import subprocess
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from spectrain import nn
from spectrain.train import TrainConfig
from spectrain.train._jobs import samples
from spectrain.train._jobs.blank import BlankLikelihood, is_blank
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.repeating import repeating

HEAVY = (
    "torch._dynamo", "torch._inductor", "sympy", "torch.distributed.tensor", "torch.distributed.fsdp",
    "torch.distributed.checkpoint", "scipy", "matplotlib", "plotly", "datasets", "transformers",
)  # fmt: skip

FIRST_STEP = """
import sys
from spectrain.train._run.progress import Progress

class Reached(BaseException):
    pass

def step(self, at, steps, text):
    raise Reached

Progress.step = step
{more}
from spectrain.cli import main
try:
    main(sys.argv[1:])
except Reached:
    print("loaded:", *(name for name in {heavy} if name in sys.modules))
"""


def _loaded_by_first_step(text_folder, out, *, more=""):
    words = f"train --data {text_folder} --out-dir {out} --depth 1 --width 32 --vocabulary 300 --block 16 --threads 1"
    words += " --batch-size 4 --max-steps 3 --eval-tokens 256"
    call = [sys.executable, "-c", FIRST_STEP.format(more=more, heavy=HEAVY), *words.split()]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    return said.split("loaded:")[1].split()


def test_the_first_step_of_the_command_imports_nothing_for_later(text_folder, tmp_path):
    assert _loaded_by_first_step(text_folder, tmp_path / "run") == []


IMPORTED = {
    "the kernels of a run made deterministic by torch": ("torch.use_deterministic_algorithms(True)", "torch._inductor"),
    "gradients forgotten by torch's optimizer": ("torch.optim.SGD([torch.ones(1)]).zero_grad()", "torch._dynamo"),
    "a kind of tensor asked for": ("from torch.distributed.tensor import DTensor", "sympy"),
}


@pytest.mark.parametrize(("more", "name"), IMPORTED.values(), ids=IMPORTED)
def test_an_import_for_later_would_be_seen(text_folder, tmp_path, more, name):
    assert name in _loaded_by_first_step(text_folder, tmp_path / "run", more=f"import torch\n{more}")


REPEATING = """
import os, sys, torch
from spectrain.train._run.repeating import repeating
if {first!r}:
    import torch._inductor.config
with {context}:
    assert torch.get_deterministic_debug_mode() == 2
    assert {first!r} or "torch._inductor" not in sys.modules
    import torch._inductor.config as found
    inside = found.deterministic
print(inside, found.deterministic, torch.get_deterministic_debug_mode(), os.environ.get("TORCHINDUCTOR_DETERMINISTIC"))
"""


def _repeating(first, *, context="repeating()", said=None):
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_DETERMINISTIC"}
    environment |= {} if said is None else {"TORCHINDUCTOR_DETERMINISTIC": said}
    call = [sys.executable, "-c", REPEATING.format(first=first, context=context)]
    return subprocess.run(call, capture_output=True, text=True, check=True, env=environment).stdout.split()


@pytest.mark.parametrize("first", [True, False], ids=["loaded before", "loaded inside"])
@pytest.mark.parametrize(("said", "after"), [(None, "False"), ("1", "True")])
def test_what_is_compiled_in_a_run_repeats_whenever_the_compiler_comes(first, said, after):
    assert _repeating(first, said=said) == ["True", after, "0", str(said)]


def test_a_compiler_that_was_told_nothing_would_be_seen():
    kernels_only = "__import__('contextlib').nullcontext(torch.set_deterministic_debug_mode('error'))"
    assert _repeating(False, context=kernels_only)[0] == "False"


VOCABULARY = 300


def _model():
    return nn.LanguageModel(vocabulary=VOCABULARY, width=32, depth=1, heads=2, generator=0)


def _targets(counted):
    targets = torch.randint(VOCABULARY, (4, 40), generator=torch.Generator().manual_seed(1))
    return targets.masked_fill(torch.arange(160).view(4, 40) >= counted, -100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_likelihood_of_a_zero_head_is_that_of_the_whole_model_bit_for_bit(dtype):
    model, known = _model(), BlankLikelihood()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    model.to(wide)
    for counted in (160, 160, 97, 1, 0, 160):
        targets = _targets(counted)
        inputs = targets.clamp_min(0)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            whole, found = samples.likelihood(model, inputs, targets), known(model, inputs, targets)
        assert torch.equal(whole, found)
        assert whole.dtype == found.dtype
        exact = counted * torch.tensor(VOCABULARY, dtype=torch.float64).log()
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


@torch.no_grad()
def _changed(name, value):
    model = _model()
    model.get_parameter(name).view(-1)[-1] = value
    return model


NOT_BLANK = {
    "a head of one entry": ("head.weight", 1e-30),
    "a head that is no number": ("head.weight", float("nan")),
    "an embedding that is no number": ("embedding.weight", float("nan")),
    "an infinite block": ("blocks.0.attention.query.weight", float("inf")),
}


@pytest.mark.parametrize("changed", NOT_BLANK.values(), ids=NOT_BLANK)
def test_only_a_zero_head_on_finite_weights_is_blank(changed):
    assert is_blank(_model())
    assert not is_blank(_changed(*changed))


class Looked(TorchFunctionMode):
    """Counts calls of embeddings, which every forward pass begins with."""

    def __init__(self):
        self.passes = 0
        super().__init__()

    def __torch_function__(self, function, kinds, given=(), said=None):
        self.passes += function is torch.nn.functional.embedding
        return function(*given, **(said or {}))


def _job(tiny, folder, **more):
    config = TrainConfig(**{**tiny, **more}, out_dir=str(folder)).derive()[0]
    job = LanguageJob(config, RunFolder(folder), resuming=False)
    job.build(config, device=torch.device("cpu"))
    return job


EXPERTS = {"moe_experts": 4, "moe_top_k": 2}


@pytest.mark.parametrize(
    ("more", "passes"), [({}, 0), ({"tied": True}, 1), (EXPERTS, 1)], ids=["new", "tied", "experts"]
)
def test_the_first_validation_computes_what_is_not_known(tiny, tmp_path, more, passes):
    job = _job(tiny, tmp_path, **more)
    with Looked() as looked:
        first = job.validate(whole=False)
    assert min(looked.passes, 1) == passes
    whole = samples.evaluate(
        job.model.eval(), job.held_out.batches(256), byte_lengths=job.text.tokenizer.byte_lengths,
        autocast=job.autocast, device=job.device,
    )  # fmt: skip
    assert (first.loss, first.seen["tokens"], first.seen["bytes"]) == (whole.loss, whole.tokens, whole.bytes)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_callers_mode_comes_back_also_after_an_error(mode):
    before = torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode(mode)
        with pytest.raises(RuntimeError, match="in a run"), repeating():
            assert torch.get_deterministic_debug_mode() == 2
            raise RuntimeError("in a run")
        assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(before)
