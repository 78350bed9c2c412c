"""Every block that ``spectrain.nn`` exports, with an input for it; run as a program it compiles them.

A process of its own for compiling: the checks of shape annotations that the tests put on every function cannot be
traced.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

from spectrain import nn

WIDTH = 12


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def features(batch):
    return (normal(batch, 5, WIDTH),)


def tokens(batch):
    return (torch.randint(0, 7, (batch, 5), generator=torch.Generator().manual_seed(1)),)


def texts(batch):
    return (tokens(batch)[0].index_fill(1, torch.tensor([4]), -1),)


def images(batch):
    r, t = torch.rand(2, batch, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sort(dim=0).values
    return normal(batch, 1, 4, 4), r, t


class Case(NamedTuple):
    """How a block is made and what it is called with.

    ``silent``: a new one gives zeros; ``one_graph``: no value decides what is computed, nor whether to raise.
    """

    make: Callable[[], torch.nn.Module]
    inputs: Callable[[int], tuple] = features
    silent: bool = True
    one_graph: bool = True


ATTENTION = {
    "MHA": {"heads": 2},
    "GQA, partial RoPE": {"heads": 4, "kv_heads": 2, "head_dim": 4, "rotary_dim": 2},
    "S1": {"heads": 2, "kv_heads": 1, "head_dim": 6, "rotary_dim": 2, "share": "content"},
    "S2": {"heads": 2, "kv_heads": 1, "head_dim": 6, "rotary_dim": 2, "share": "all"},
    "MLA": {"heads": 2, "latent": 5, "query_rank": 7},
    "sinks": {"heads": 4, "kv_heads": 2, "head_dim": 4, "rotary_dim": 2, "window": 1, "sinks": 2},
    "window, log n": {"heads": 2, "window": 2, "log_n": 4, "log_n_learned": True},
    "MLA, window, log n": {"heads": 2, "latent": 5, "window": 2, "log_n": 4},
}
EXPERTS = {
    "MoE": {"experts": 4, "top_k": 2, "hidden": 6, "shared": 1},
    "MoE, sigmoid, normalised": {
        "experts": 4, "top_k": 2, "hidden": 6, "activation": "sigmoid", "renormalise": True, "normalised": True,
        "balance": "histogram",
    },
    "MoE, threshold": {"experts": 4, "top_k": 2, "hidden": 6, "activation": "sigmoid", "select": "threshold"},
}  # fmt: skip
LANGUAGE = {"vocabulary": 7, "width": WIDTH, "depth": 1, "heads": 2, "hidden": 10}
CASES: dict[str, Case] = {
    **{name: Case(lambda a=arguments: nn.Attention(WIDTH, **a)) for name, arguments in ATTENTION.items()},
    "SwiGLU": Case(lambda: nn.models.SwiGLU(WIDTH, hidden=16)),
    **{
        name: Case(
            lambda a=arguments: nn.MoE(WIDTH, **a),
            silent="normalised" not in arguments,
            one_graph="select" not in arguments,
        )
        for name, arguments in EXPERTS.items()
    },
    "LanguageModel": Case(lambda: nn.LanguageModel(**LANGUAGE), tokens),
    "LanguageModel, tied, latent, experts": Case(
        lambda: nn.LanguageModel(
            **LANGUAGE,
            tied=True,
            attention={"latent": 5},
            feed_forward=lambda i: nn.MoE(WIDTH, **EXPERTS["MoE"]),
        ),
        tokens,
        silent=False,
    ),
    "TextEncoder": Case(
        lambda: nn.TextEncoder(vocabulary=7, width=WIDTH, depth=1, heads=2), texts, silent=False, one_graph=False
    ),
    "ImageTransformer": Case(
        lambda: nn.ImageTransformer(size=4, channels=1, patch=2, width=WIDTH, depth=1, heads=2, classes=2), images
    ),
    "Rotary": Case(lambda: nn.attention.Rotary(WIDTH), silent=False),
    "Tap": Case(nn.activations.Tap, silent=False),
}


def cast(inputs, dtype):
    """Floating inputs in another dtype, the others as they are."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def trained(make, dtype=torch.float64):
    """A block that is not where it starts, where its output would be zero."""
    block = make().to(dtype)
    with torch.no_grad():
        for i, p in enumerate(block.parameters()):
            p.copy_(0.4 * normal(*p.shape, seed=i) + (p.dim() == 1))
    return block


def gradients(block, call, inputs):
    """Those of the weights and of floating inputs, of the sum of squares of what ``call`` gives."""
    block.zero_grad()
    inputs = tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)
    call(*inputs).square().sum().backward()
    return [x.grad.clone() for x in (*inputs, *block.parameters()) if x.grad is not None]


def compiles(case):
    """Raise where the compiled block is not the eager one: values and gradients."""
    block, inputs = trained(case.make), case.inputs(2)
    torch.compiler.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=case.one_graph)
    torch.testing.assert_close(compiled(*inputs), block(*inputs), rtol=1e-12, atol=1e-13)
    pair = [gradients(block, call, inputs) for call in (compiled, block)]
    torch.testing.assert_close(*pair, rtol=1e-11, atol=1e-12)


def decodes(case):
    """Raise where a compiled block decodes otherwise, with a cache."""
    block, inputs = trained(case.make), case.inputs(2)
    torch.compiler.reset()
    compiled = torch.compile(block, backend="aot_eager")
    caches = block.empty_cache(), block.empty_cache()
    with torch.no_grad():
        for part in inputs[0].split([3, 1, 1], dim=1):
            torch.testing.assert_close(compiled(part, cache=caches[0]), block(part, cache=caches[1]))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        block = name.removeprefix("decode: ")
        (compiles if block == name else decodes)(CASES[block])
        print(name)
