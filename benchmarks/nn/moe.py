"""MoE forward and backward beside a loop over experts and Hugging Face's DeepseekV3MoE: medians of paired ratios.

All three compute the same function of the same weights, checked before they are timed. Theirs runs as transformers
chooses by itself (grouped_mm where torch has it), and as its own loop. The input has a gradient, as in a model, whose
lower layers need it.

No layout saves a product: those of the loop alone, on operands that lie there, are the least that its time can become.

    python -m benchmarks.nn.moe
"""

import functools
import statistics
import time

import torch
import torch.nn.functional as F
import transformers
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import nn

SHAPES = (
    (256, 16, 4, 128, 1024),
    (256, 64, 8, 64, 1024),
    (128, 128, 8, 32, 2048),
    (63, 16, 4, 30, 1024),
    (256, 16, 4, 136, 4096),
)


def loop(moe, x):
    """The usual way: for each expert find its tokens, compute them, add them."""
    routing = moe.router(x, moe.bias)
    out = torch.zeros_like(x)
    for e in range(len(moe.bias)):
        (token,) = routing.chosen[:, e].nonzero(as_tuple=True)
        rows = x[token]
        hidden = F.silu(rows @ moe.experts.gate[e].T) * (rows @ moe.experts.up[e].T)
        weight = routing.weights[token, e : e + 1].to(x.dtype)
        out = out.index_add(0, token, hidden @ moe.experts.down[e].T * weight)
    return out


@torch.no_grad()
def products(moe, x):
    """A call that multiplies as the loop does, forward and backward, and nothing else."""
    chosen = moe.router(x, moe.bias).chosen
    maps = [(moe.router.weight.to(torch.promote_types(x.dtype, torch.float32)), len(x))]
    maps += [(getattr(moe.shared, part).weight, len(x)) for part in ("gate", "up", "down")]
    for e, count in enumerate(chosen.sum(dim=0).tolist()):
        maps += [(getattr(moe.experts, part)[e], count) for part in ("gate", "up", "down")]
    g = torch.Generator().manual_seed(2)
    ready = [
        (w.detach(), *(torch.randn(count, side, generator=g).to(w.dtype) for side in w.shape)) for w, count in maps
    ]

    def run():
        for w, outer, inner in ready:
            inner @ w.T, outer @ w, outer.T @ inner

    return run


def step(layer, owner, x):
    """Forward and backward."""
    owner.zero_grad()
    x.grad = None
    layer(x).square().sum().backward()


def theirs(moe, implementation):
    """Hugging Face's layer with the weights of ours."""
    count, hidden, width = moe.experts.gate.shape
    config = DeepseekV3Config(
        hidden_size=width, n_routed_experts=count, num_experts_per_tok=moe.router.top_k, moe_intermediate_size=hidden,
        n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=moe.scale,
    )  # fmt: skip
    config._experts_implementation = implementation
    layer = DeepseekV3MoE(config)
    with torch.no_grad():
        layer.gate.weight.copy_(moe.router.weight)
        layer.experts.gate_up_proj.copy_(torch.cat((moe.experts.gate, moe.experts.up), dim=1))
        layer.experts.down_proj.copy_(moe.experts.down)
        for part in ("gate", "up", "down"):
            getattr(layer.shared_experts, f"{part}_proj").weight.copy_(getattr(moe.shared, part).weight)
    return layer


def compare(width, experts, top_k, hidden, tokens, dtype, rounds):
    """Median time of the layer and median ratios to the loop and to both forms of theirs, of paired runs."""
    moe = nn.MoE(width, experts=experts, top_k=top_k, hidden=hidden, shared=1, activation="sigmoid", renormalise=True,
                 generator=0)  # fmt: skip
    for matrix in (moe.experts.down, moe.shared.down.weight):
        torch.nn.init.normal_(matrix, std=0.1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(1))
    others = {
        "loop": lambda x: loop(moe, x[0])[None] * moe.scale + moe.shared(x),
        "grouped_mm": theirs(moe, "grouped_mm").to(dtype),
        "eager": theirs(moe, "eager").to(dtype),
    }
    moe, x = moe.to(dtype), x.to(dtype).requires_grad_()
    ratios, ours, truth = {}, [], moe(x)
    for name, layer in others.items():
        owner = moe if name == "loop" else layer
        try:
            torch.testing.assert_close(layer(x), truth, rtol=2e-2, atol=1e-3 if dtype == torch.float32 else 0.3)
            calls = {"ours": functools.partial(step, moe, moe, x), name: functools.partial(step, layer, owner, x)}
            if name == "loop":
                calls["products alone"] = products(moe, x.detach()[0])
            times = alternate(calls, rounds=rounds, warm=2, clock=time.process_time)
        except RuntimeError as refusal:
            ratios[name] = f"refused: {str(refusal).splitlines()[0][:40]}"
            continue
        ours += times["ours"]
        ratios[name] = times.ratio("ours", name)
        if name == "loop":
            ratios["products"] = times.ratio("products alone", name)
    return statistics.median(ours), ratios


def measure(*, shapes: tuple[tuple[int, int, int, int, int], ...] = SHAPES, rounds: int = 9) -> Found:
    """Width, experts, top k, hidden and tokens of each shape."""
    rows = []
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            ours, ratios = compare(*shape, dtype, rounds)
            named = zip(("width", "experts", "top k", "hidden", "tokens"), shape, strict=True)
            alone = ratios.pop("products")
            of = {f"of {name}": ratio for name, ratio in ratios.items()}
            row = {"dtype": str(dtype)[6:], **dict(named), "ms": 1e3 * ours, **of, "products alone / loop": alone}
            rows.append(row)
            print(rows[-1], flush=True)
    body = f"Targets: at most 0.5 of the loop, at most 1 of theirs. transformers {transformers.__version__}."
    ratios = {
        f"{'-'.join(map(str, list(row.values())[:6]))} {name}": row[name]
        for row in rows
        for name in ("of loop", "of grouped_mm", "of eager", "products alone / loop")
        if isinstance(row[name], float)
    }
    worst = {name: max(v for key, v in ratios.items() if key.endswith(f" {name}")) for name in ("of loop", "of eager")}
    alone = [row["products alone / loop"] for row in rows]
    worst |= {"least": min(alone), "most": max(alone)}
    return Found(rows=rows, body=f"{body}\n\n{_record.show(rows)}", figures=worst, ratios=ratios)


if __name__ == "__main__":
    main(
        "moe",
        "MoE forward and backward take at most {of loop:.2f} of the time of a loop over experts and {of eager:.2f} of "
        "that of transformers' DeepseekV3MoE; products alone take {least:.2f} to {most:.2f} of the loop",
        measure,
        smoke={"shapes": ((16, 4, 2, 8, 8),), "rounds": 1},
        check={"shapes": SHAPES[:1], "rounds": 3},
    )
