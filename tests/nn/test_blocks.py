"""One suite over all blocks: gradients, batching, dtypes, checkpointing, state dicts, meta device, compile."""

import copy
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from spectrain import nn

sys.path.insert(0, str(Path(__file__).parent))
blocks = importlib.import_module("blocks")
CASES, cast, gradients, trained = blocks.CASES, blocks.cast, blocks.gradients, blocks.trained
COMPILED = (*CASES, *(f"decode: {name}" for name in blocks.ATTENTION))
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_the_suite_has_every_block_that_is_exported():
    places = [nn, nn.attention, nn.experts, nn.models, nn.activations]
    found = {name: getattr(place, name) for place in places for name in dir(place)}
    exported = {name for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, torch.nn.Module)}
    exported.remove("AdaptedLinear")  # stands around a layer that is there: tests/nn/test_adapter.py
    assert exported == {type(case.make()).__name__ for case in CASES.values()}


@every
def test_gradients_in_input_and_weights(case):
    block, inputs = trained(case.make), case.inputs(1)
    names = [name for name, _ in block.named_parameters()]
    floating = [i for i, x in enumerate(inputs) if x.is_floating_point()]

    def call(*values):
        given, weights = list(inputs), dict(zip(names, values[len(floating) :], strict=True))
        for i, value in zip(floating, values, strict=False):
            given[i] = value
        return torch.func.functional_call(block, weights, tuple(given))

    values = (*(inputs[i].clone().requires_grad_() for i in floating), *block.parameters())
    assert torch.autograd.gradcheck(call, values, fast_mode=True)
    with sdpa_kernel(SDPBackend.MATH):  # torch's fused kernel has no second derivative, and says so
        assert torch.autograd.gradgradcheck(call, values, fast_mode=True)


@every
def test_a_batch_is_its_examples(case):
    block, inputs = trained(case.make), case.inputs(3)
    alone = torch.cat([block(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    torch.testing.assert_close(block(*inputs), alone, rtol=1e-12, atol=1e-13)
    assert block(*(x[:0] for x in inputs)).shape == (0, *alone.shape[1:])


@every
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_narrow_dtypes_stay_what_they_are(case, dtype, bound):
    block, inputs = trained(case.make), case.inputs(2)
    y = copy.deepcopy(block).to(dtype)(*cast(inputs, dtype))
    assert y.dtype == dtype
    assert (y.double() - block(*inputs)).abs().max() <= bound * block(*inputs).abs().max()


@every
def test_autocast_is_near_and_trains(case):
    block, inputs = trained(case.make, torch.float32), cast(case.inputs(2), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(*inputs)
    assert (y.float() - block(*inputs)).abs().max() <= 0.1 * block(*inputs).abs().max()
    if y.requires_grad:
        y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@every
def test_checkpointing_changes_no_gradient(case):
    block, inputs = trained(case.make), case.inputs(2)
    plain = gradients(block, block, inputs)
    again = gradients(block, lambda *x: checkpoint(block, *x, use_reentrant=False), inputs)
    assert plain
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@every
def test_a_state_dict_holds_all_and_the_meta_device_makes_the_same_block(case):
    block, inputs = trained(case.make), case.inputs(2)
    with torch.device("meta"):
        empty = case.make().double()
    empty.to_empty(device="cpu")  # whatever is in memory: nothing may be left of it
    for t in (*empty.parameters(), *empty.buffers()):
        torch.nn.init.constant_(t, torch.nan if t.is_floating_point() else -9)
    empty.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(empty(*inputs), block(*inputs))


def initialise(block, seed):
    """By the block's own method, or the function for a whole model."""
    if isinstance(block, nn.LanguageModel):
        nn.models.initialise(block, generator=seed)
    elif any(True for _ in block.parameters()):
        block.initialise(generator=torch.Generator().manual_seed(seed))


@every
def test_initialising_an_empty_block_is_initialising_a_new_one(case):
    with torch.device("meta"):
        empty = case.make()
    empty.to_empty(device="cpu")
    block = case.make()
    for each in (empty, block):
        initialise(each, 4)
    assert block.state_dict().keys() == empty.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(empty.state_dict().values(), block.state_dict().values(), strict=True))
    out = block(*cast(case.inputs(1), torch.float32))
    assert out.isfinite().all()
    assert bool(out.any()) != case.silent  # what it writes to the stream is zero


@every
def test_drawing_needs_no_global_generator(case):
    before = torch.get_rng_state()
    block = case.make()
    made = torch.get_rng_state()
    initialise(block, 0)
    block(*cast(case.inputs(1), torch.float32))
    assert torch.equal(torch.get_rng_state(), made)
    if not isinstance(block, nn.Attention | nn.models.SwiGLU):  # parts of a model, which draws for them
        assert torch.equal(made, before)


def compiled(names):
    program = [sys.executable, str(Path(__file__).with_name("blocks.py")), *names]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == list(names)


SMALL = (
    *("S1", "MLA, window, log n", "decode: MLA, window, log n"),
    *("SwiGLU", "TextEncoder", "ImageTransformer", "Rotary", "Tap"),
)


def test_one_graph_equal_to_eager():
    compiled(SMALL)


@pytest.mark.full
def test_one_graph_equal_to_eager_for_all_others():
    compiled([name for name in COMPILED if name not in SMALL])
