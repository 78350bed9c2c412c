"""Windows and packed documents by blocks of queries: equal to the mask written out, in memory linear in the length."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain import nn
from spectrain.nn._attention.attend import attend
from spectrain.nn._attention.visibility import Visibility
from spectrain.nn._capture.tap import Tap

LENGTH = 700  # more than two blocks of queries, and no multiple of one


def nothing(*_):
    """Nobody looks."""


def packed(length, *, batch=2):
    """Documents of uneven length, one of them coming again, and others in every row."""
    places = torch.arange(length)
    return torch.stack([(places // (90 + 17 * row)) % 4 for row in range(batch)])


def definition(length, stored, window, documents):
    """The rule, pair by pair of positions."""
    queries, keys = torch.arange(stored)[stored - length :, None], torch.arange(stored)
    sees = keys <= queries
    if window is not None:
        sees = sees & (queries - keys < window)
    sees = sees[None, None]
    return (
        sees if documents is None else sees & (documents[:, None, stored - length :, None] == documents[:, None, None])
    )


CASES = {
    "window": (LENGTH, LENGTH, 100, False),
    "window wider than a block": (LENGTH, LENGTH, 300, False),
    "window of one": (LENGTH, LENGTH, 1, False),
    "window of all": (LENGTH, LENGTH, LENGTH, False),
    "documents": (LENGTH, LENGTH, None, True),
    "documents and window": (LENGTH, LENGTH, 50, True),
    "continued": (LENGTH, LENGTH + 133, None, False),
    "continued, window": (LENGTH, LENGTH + 133, 120, False),
    "continued, documents": (LENGTH, LENGTH + 133, None, True),
}


def tensors(length, stored, *, heads=4, kv_heads=2, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    shapes = ((2, heads, length, 8), (2, kv_heads, stored, 8), (2, kv_heads, stored, 8))
    return [torch.randn(shape, generator=g, dtype=dtype).requires_grad_() for shape in shapes]


def by_blocks(q, k, v, visible):
    return attend(q, k, v, visible, scale=0.3, maps=Tap(costly=True), look=nothing)


def reference(q, k, v, sees):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    return (q @ k.mT * 0.3).masked_fill(~sees, -torch.inf).softmax(-1) @ v


def distance(found, sees, parts):
    """The largest difference of results and gradients from those of the mask written out."""
    expected = reference(*parts, sees)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected).sin()
    ours = torch.autograd.grad((found * weights).sum(), parts)
    theirs = torch.autograd.grad((expected * weights).sum(), parts)
    return max(float((a - b).detach().abs().max()) for a, b in zip((found, *ours), (expected, *theirs), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_mask_written_out(case):
    length, stored, window, several = CASES[case]
    documents, parts = packed(stored) if several else None, tensors(length, stored)
    visible = Visibility(length, stored, parts[0].device, window, documents)
    sees = definition(length, stored, window, documents)
    assert distance(by_blocks(*parts, visible), sees, parts) < 1e-12
    assert torch.equal(visible.counts().expand(2, 1, -1), sees.sum(-1).expand(2, 1, -1))


WRONG = {
    "a window one too wide": ("window", lambda L, d: definition(L, L, 101, None)),
    "a window one too narrow": ("window", lambda L, d: definition(L, L, 99, None)),
    "no window": ("window", lambda L, d: definition(L, L, None, None)),
    "a window that begins with its block": (
        "window",
        lambda L, d: definition(L, L, 100, None) & (torch.arange(L)[:, None] // 256 == torch.arange(L) // 256),
    ),
    "documents that leak": ("documents", lambda L, d: definition(L, L, None, None)),
    "a document begun one late": ("documents", lambda L, d: definition(L, L, None, d.roll(1, 1))),
    "a document that comes again is another": (
        "documents",
        lambda L, d: definition(L, L, None, (d.diff(prepend=d[:, :1], dim=1) != 0).cumsum(1)),
    ),
    "documents of the other row": ("documents", lambda L, d: definition(L, L, None, d.flip(0))),
    "the future": ("documents", lambda L, d: definition(L, L, None, d) | torch.eye(L, dtype=torch.bool).roll(1, 1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_rules_are_told_apart(name):
    case, wrong = WRONG[name]
    length, stored, window, several = CASES[case]
    documents, parts = packed(stored), tensors(length, stored)
    visible = Visibility(length, stored, parts[0].device, window, documents if several else None)
    assert distance(by_blocks(*parts, visible), wrong(length, documents), parts) > 1e-3


class Sizes(TorchDispatchMode):
    """The numbers of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return made


RUNS = {
    "window": {"kv_heads": 2, "window": 64},
    "documents": {"kv_heads": 2},
    "a latent": {"latent": 8},
    "values wider": {"kv_heads": 2, "value_dim": 6},
    "values narrower": {"kv_heads": 1, "value_dim": 2},
    "shared, values narrower": {"kv_heads": 2, "share": "content", "head_dim": 8, "value_dim": 6},
}


def memory(run, length):
    """Bytes of the largest tensor of a forward and backward pass, and of all that is kept for the latter."""
    kept, block = {}, nn.Attention(16, heads=4, **RUNS[run])
    documents = packed(length, batch=1) if run == "documents" else None
    x = torch.randn(1, length, 16, generator=torch.Generator().manual_seed(0))

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Sizes() as sizes:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = block(x, documents=documents)
        y.sum().backward()
    return sizes.largest, sum(kept.values())


@pytest.mark.parametrize("run", RUNS)
def test_memory_is_linear_in_the_length(run):
    """Twice the length takes twice the memory, and less than a mask of bools would alone."""
    short, long = memory(run, 2048), memory(run, 4096)
    assert max(long) < 4096 * 4096
    assert all(b <= 2.2 * a for a, b in zip(short, long, strict=True))


def test_the_memory_of_a_mask_would_have_been_seen():
    """What the tests above count sees torch's own call under a mask."""
    q = torch.randn(1, 1, 2048, 8)
    with Sizes() as masked:
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(2048, 2048, dtype=torch.bool).tril())
    with Sizes() as narrow:
        F.scaled_dot_product_attention(q, q, q[..., :4], is_causal=True)
    assert min(masked.largest, narrow.largest) >= 2048 * 2048


@pytest.mark.parametrize("kind", [{"window": 100}, {"window": 100, "sinks": 4}, {"latent": 8}, {"log_n": 128}])
def test_pieces_from_a_cache_are_the_whole(kind):
    """Blocks of a whole text, and a block each from a cache, whose keys begin elsewhere."""
    torch.manual_seed(0)
    block = nn.Attention(16, heads=4, **kind).double()
    x, documents, cache = torch.randn(2, 600, 16, dtype=torch.float64), packed(600), block.empty_cache()
    whole = block(x, documents=documents)
    places = (slice(0, 300), slice(300, 301), slice(301, 600))
    pieces = [block(x[:, at], documents=documents[:, at], cache=cache) for at in places]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-10, atol=1e-10)


PROGRAM = """
import torch
from spectrain import nn
for kind in ({"window": 100}, {}):
    torch.manual_seed(0)
    block, x = nn.Attention(16, heads=4, **kind), torch.randn(1, 700, 16)
    documents, found = None if kind else (torch.arange(700) // 90 % 4)[None], []
    for module in (block, torch.compile(block, backend="aot_eager", fullgraph=True)):
        block.zero_grad()
        y = module(x, documents=documents)
        y.square().sum().backward()
        found.append((y.detach(), *(p.grad.clone() for p in block.parameters())))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
"""


def test_one_graph_in_a_compiled_model():
    """In a process of its own: the checks of types that tests put into every function are nothing to compile."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
