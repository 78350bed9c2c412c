"""MoE forward and backward beside a loop over experts, equal weights and choices: medians of paired ratios.

python benchmarks/moe.py [--write]
"""

import statistics
import sys
import time

import _record
import torch
import torch.nn.functional as F

from spectrain import nn

SHAPES = [(256, 16, 4, 128, 1024), (256, 64, 8, 64, 1024), (128, 128, 8, 32, 2048), (63, 16, 4, 30, 1024)]
REPEATS = 9


def loop(moe, x):
    """The usual way: for each expert find its tokens, compute them, add them."""
    routing = moe.router(x, moe.bias)
    out = torch.zeros_like(x)
    for e in range(len(moe.bias)):
        (token,) = routing.chosen[:, e].nonzero(as_tuple=True)
        rows = x[token]
        hidden = F.silu(rows @ moe.experts.gate[e].T) * (rows @ moe.experts.up[e].T)
        out = out.index_add(0, token, hidden @ moe.experts.down[e].T * routing.weights[token, e : e + 1])
    return out


def seconds(layer, moe, x):
    """Time of forward and backward."""
    moe.zero_grad()
    start = time.perf_counter()
    layer(x).square().sum().backward()
    return time.perf_counter() - start


def measure(width, experts, top_k, hidden, tokens):
    """Median time of the layer and median ratio to the loop, both of paired runs."""
    moe = nn.MoE(width, experts=experts, top_k=top_k, hidden=hidden, activation="sigmoid", generator=0)
    torch.nn.init.normal_(moe.experts.down, std=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(moe(x), loop(moe, x), rtol=1e-3, atol=1e-3)
    pairs = [(seconds(moe, moe, x), seconds(lambda x: loop(moe, x), moe, x)) for _ in range(REPEATS + 2)][2:]
    return statistics.median(ours for ours, _ in pairs), statistics.median(ours / theirs for ours, theirs in pairs)


def main():
    """Print the table; with --write, record it."""
    rows = []
    for shape in SHAPES:
        ours, ratio = measure(*shape)
        rows.append((*shape, f"{1e3 * ours:.1f}", f"{ratio:.2f}"))
    body = _record.table(("width", "experts", "top k", "hidden", "tokens", "ms", "of the loop"), rows)
    print(body)
    if "--write" in sys.argv[1:]:
        claim = "MoE forward and backward, as a share of a loop over experts"
        _record.write("moe", claim=claim, body=f"Target: at most 0.5.\n\n{body}", data={"rows": rows})


if __name__ == "__main__":
    main()
