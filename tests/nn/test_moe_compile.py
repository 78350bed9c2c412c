"""A language model with experts under torch.compile: one graph, the same steps, every trained token counted once."""

import shutil
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from torch.utils.checkpoint import checkpoint
from spectrain import nn

def build(**kinds):
    def experts(block):
        shape = {{"experts": 6, "top_k": 2, "hidden": 8, "shared": 1, "activation": "sigmoid", "renormalise": True}}
        return nn.MoE(16, **shape, **kinds, generator=block)
    model = nn.LanguageModel(vocabulary=40, width=16, depth={depth}, heads=2, attention={{"latent": 8}}, generator=0,
                             feed_forward=experts).double()
    draw = torch.Generator().manual_seed(5)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=draw, dtype=torch.float64)
    return model

tokens = torch.randint(0, 40, (8, 9), generator=torch.Generator().manual_seed(1))

def layers(model):
    return [m for m in model.modules() if isinstance(m, nn.MoE)]

def trajectory(model, call):
    optimizer, out = torch.optim.SGD(model.parameters(), lr=0.1), []
    for step in range(2):
        for part in tokens.roll(step, 1).split({parts}):
            logits = call(part[:, :-1]).flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, part[:, 1:].flatten()) * len(part) / 8
            if any(layer.penalty for layer in layers(model)):
                loss = loss + nn.experts.auxiliary_loss(model) * len(part) / 8
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        out += [loss.detach(), *(layer.update_bias().counts for layer in layers(model))]
    return [*out, *(layer.bias.clone() for layer in layers(model)), *(p.detach().clone() for p in model.parameters())]

KIND = {kind}
eager, other = build(**KIND), build(**KIND)
compiled = torch.compile(other, backend="aot_eager", fullgraph=KIND.get("balance") != "quantile")
torch.testing.assert_close(trajectory(other, compiled), trajectory(eager, eager), rtol=1e-9, atol=1e-10)

shown = tokens[:{parts}[0]]
other.eval()
compiled(shown[:, :-1])
other.train()
with torch.no_grad():
    compiled(shown[:, :-1])
assert not any(int(layer.tokens) for layer in layers(other))
if not KIND:
    inside = torch.compile(lambda x: checkpoint(other, x, use_reentrant=False), backend="aot_eager")
    for call in (lambda x: checkpoint(compiled, x, use_reentrant=False), inside):
        call(shown[:, :-1]).square().mean().backward()
        assert [layer.update_bias().tokens for layer in layers(other)] == [8 * len(shown)] * {depth}
    there = torch.arange(8).expand(len(shown), 8) < 5
    for call in (compiled, other):
        call(shown[:, :-1], counted=there).square().mean().backward()
        assert [layer.update_bias().tokens for layer in layers(other)] == [5 * len(shown)] * {depth}
    nn.attention.watch_logits(other)
    compiled(shown[:, :-1])
    found = nn.attention.largest_logits(other)
    other(shown[:, :-1])
    torch.testing.assert_close(found, nn.attention.largest_logits(other), rtol=1e-6, atol=0)
    first, second = (compiled(part[:, :-1]).sum() for part in tokens.split({parts}))
    first.backward()
    try:
        second.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        raise AssertionError("counts of two forward passes were mixed")
print("equal")
"""
KINDS = {
    "plain": {},
    "penalty": "{'penalty': nn.experts.Penalty(weight=0.1)}",
    "histogram": {"balance": "histogram", "normalised": True},
    "quantile": {"balance": "quantile"},
}


def check_program(kind, *, depth, parts):
    """In a process of its own: the checks of shape annotations that pytest adds cannot be traced."""
    program = PROGRAM.format(kind=KINDS[kind], depth=depth, parts=parts)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "equal"


def test_one_graph_with_the_steps_and_the_counts_of_eager():
    check_program("plain", depth=1, parts=[4, 4])


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_of_two_blocks_for_micro_batches_of_several_sizes(kind):
    check_program(kind, depth=2, parts=[5, 3])


INDUCTOR = """
import sys
import torch
from spectrain import nn

dtype = getattr(torch, sys.argv[1])

def made():
    def experts(block):
        shape = {"experts": 4, "top_k": 2, "hidden": 16, "shared": 1, "activation": "sigmoid", "renormalise": True}
        return nn.MoE(32, **shape, balance="histogram", penalty=nn.experts.Penalty(weight=0.1), generator=block)
    model = nn.LanguageModel(vocabulary=40, width=32, depth=2, heads=2, attention={"latent": 8, "log_n": 8},
                             feed_forward=experts, generator=0).to(dtype)
    draw = torch.Generator().manual_seed(5)
    for p in model.parameters():
        p.data += (0.1 * torch.randn(p.shape, generator=draw, dtype=torch.float64)).to(dtype)
    return model

def steps(model, call):
    optimizer, out = torch.optim.SGD(model.parameters(), lr=0.1), []
    for step in range(3):
        tokens = torch.randint(0, 40, (4, 9), generator=torch.Generator().manual_seed(step))
        logits = call(tokens[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()) + nn.experts.auxiliary_loss(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        layers = [m for m in model.modules() if isinstance(m, nn.MoE)]
        out += [loss.detach(), *(layer.update_bias().counts for layer in layers)]
        out += [layer.bias.clone() for layer in layers]
    return [*out, *(p.detach() for p in model.parameters())]

eager, other = made(), made()
bound = {"float64": 1e-8, "float32": 1e-3}[sys.argv[1]]
torch.testing.assert_close(
    steps(other, torch.compile(other, backend="inductor", fullgraph=True)), steps(eager, eager), rtol=bound, atol=bound
)
print("equal")
"""


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float64"])
def test_inductor_takes_the_same_steps(dtype):
    """Forward and backward of a model with a latent and experts, in generated C++ (needs g++)."""
    if shutil.which("g++") is None:
        pytest.skip("no g++, which Inductor compiles with")
    done = subprocess.run(
        [sys.executable, "-c", INDUCTOR, dtype], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "equal"
