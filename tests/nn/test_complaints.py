"""What users of other libraries complained of about experts, caches and hooks; docs/complaints.md lists them all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from spectrain import nn

ALL_TO_ONE = 20.0


def one_expert_takes_all(expert, *, kind="squared", experts=2):
    """A layer whose router sends every positive token to one expert."""
    moe = nn.MoE(4, experts=experts, top_k=1, hidden=4, penalty=nn.experts.Penalty(kind=kind, weight=1.0), generator=0)
    with torch.no_grad():
        moe.router.weight.zero_()
        moe.router.weight[expert] = ALL_TO_ONE
    return moe


def test_imbalances_of_two_layers_do_not_cancel():
    """transformers #28255, #29503, #31464: routers of all layers were put end to end before loads were counted.

    One layer sends everything to expert 0, the other to expert 1; together they look balanced.
    """
    layers = torch.nn.ModuleList([one_expert_takes_all(0), one_expert_takes_all(1)])
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) + 1
    routings = []
    for layer in layers:
        layer(x)
        routings.append(layer.router(x, layer.bias))
    each = ((1 - 1 / 2) ** 2 + (0 - 1 / 2) ** 2) / 2
    assert nn.experts.auxiliary_loss(layers).item() == pytest.approx(2 * each)
    theirs = load_balancing_loss_func(tuple(routing.logits for routing in routings), num_experts=2, top_k=1)
    alone = [load_balancing_loss_func((routing.logits,), num_experts=2, top_k=1) for routing in routings]
    assert theirs.item() == pytest.approx(1)  # what it says of perfect balance; the like of it is what we must not say
    assert [loss.item() for loss in alone] == pytest.approx([2, 2])
    parts = zip(*routings, strict=True)  # what is counted is None where all tokens are
    together = type(routings[0])(*(None if part[0] is None else torch.cat(part) for part in parts))
    assert nn.experts.Penalty(weight=1.0)(together, sequence=16).item() == pytest.approx(0)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_penalty_of_balance_does_not_grow_with_the_number_chosen(top_k):
    """OLMoE #45: the shares of the assignments lacked 1 / k, so that 8 experts a token weighed 8 times as much."""
    moe = nn.MoE(
        8, experts=8, top_k=top_k, hidden=4, penalty=nn.experts.Penalty(kind="product", weight=1.0), generator=0
    )
    with torch.no_grad():
        moe.router.weight.copy_(torch.eye(8))
    x = torch.stack([torch.ones(8).index_fill(0, (torch.arange(top_k) + i) % 8, 3.0) for i in range(8)])  # in turns
    routing = moe.router(x, moe.bias)
    assert routing.chosen.sum(0).tolist() == [top_k] * 8
    moe(x)
    assert nn.experts.auxiliary_loss(moe).item() == pytest.approx(1 / 8)
    without = (routing.chosen.double().mean(0) * routing.scores.mean(0)).sum().item()
    assert (without == pytest.approx(1 / 8)) == (top_k == 1)


@pytest.mark.parametrize("kind", ["product", "squared", "entropy"])
def test_descending_the_penalty_alone_balances_the_loads(kind):
    """transformers #28093: the loss was a constant, and nothing moved by it."""
    penalty = nn.experts.Penalty(kind=kind, weight=1.0)
    moe = nn.MoE(8, experts=4, top_k=1, hidden=4, penalty=penalty, generator=0)
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0)) + 1.5
    optimizer = torch.optim.SGD(moe.router.parameters(), lr=2.0)
    seen = []
    for _ in range(60):
        moe(x)
        optimizer.zero_grad()
        nn.experts.auxiliary_loss(moe).backward()
        optimizer.step()
        seen.append(moe.router(x, moe.bias).chosen.sum(0).max().item() * 4 / 512 - 1)
    assert seen[0] > 0.5
    assert min(seen[-10:]) < seen[0] / 3


def test_the_penalty_needs_no_flag_and_no_output_of_the_model():
    """transformers #44284: the loss was off, without a word, unless router logits were returned."""
    model = nn.LanguageModel(
        vocabulary=9, width=8, depth=2, heads=2, generator=0,
        feed_forward=lambda i: nn.MoE(8, experts=4, top_k=1, hidden=4, penalty=nn.experts.Penalty(), generator=i),
    )  # fmt: skip
    assert isinstance(model(torch.zeros(1, 3, dtype=torch.long)), torch.Tensor)
    assert nn.experts.auxiliary_loss(model).item() > 0
    with pytest.raises(ValueError, match="holds a penalty"):
        nn.experts.auxiliary_loss(model)  # taken, and not twice


RANKS = """
import json, os, sys
from contextlib import nullcontext
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from spectrain import nn

def train(way):
    arguments = dict(shared=1, balance="histogram", activation="sigmoid", generator=0)
    moe = nn.MoE(6, experts=4, top_k=2, hidden=5, **arguments).double()
    draw = torch.Generator().manual_seed(1)
    for p in moe.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=draw, dtype=torch.float64)
    model = DistributedDataParallel(moe, broadcast_buffers=way != "no broadcast")
    found = {}
    for step in range(3):
        whole = torch.randn(8, 3, 6, generator=draw, dtype=torch.float64)
        mine = whole.chunk(world)[rank].chunk(2)                                   # two micro-batches
        model.zero_grad()
        with model.no_sync() if way == "no_sync" else nullcontext():
            (model(mine[0]).square().sum() * world / whole.numel()).backward()
        (model(mine[1]).square().sum() * world / whole.numel()).backward()         # DDP averages over ranks
        for counter in (moe.loads, moe.tokens, moe.histogram):
            dist.all_reduce(counter)
        found[f"loads {step}"] = moe.update_bias().counts.tolist()
        found[f"gradient {step}"] = torch.cat([p.grad.flatten() for p in moe.parameters()]).tolist()
        found[f"bias {step}"] = moe.bias.tolist()
    return found

rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
found = {way: train(way) for way in ("no_sync", "no broadcast", "neither")}
dist.barrier()
dist.destroy_process_group()
print(json.dumps(found), flush=True)  # a full pipe stops a rank: no other may still wait for it
os._exit(0)  # a gloo thread may ask for an interpreter that is gone
"""


@pytest.fixture(scope="module")
def ranks(printed_by_ranks):
    """What one rank finds, and what each of two does, by the way they accumulate."""
    (one,), two = ([json.loads(out.splitlines()[-1]) for out in printed_by_ranks(RANKS, world)] for world in (1, 2))
    return one, two


@pytest.mark.parametrize("way", ["no_sync", "no broadcast"])
def test_gradients_and_counts_of_two_ranks_are_those_of_one(ranks, way):
    """pytorch #160285: the gradients of experts came out doubled on two ranks; here also loads, twice accumulated."""
    one, two = ranks[0][way], [found[way] for found in ranks[1]]
    assert two[0] == two[1]
    assert {key: sum(counts) for key, counts in one.items() if "loads" in key} == {f"loads {i}": 48 for i in range(3)}
    for key, truth in one.items():
        if "loads" in key:
            assert two[0][key] == truth
        else:
            got, truth = (torch.tensor(values, dtype=torch.float64) for values in (two[0][key], truth))
            torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(2 * got, truth, rtol=1e-3)  # what was complained of


def test_accumulating_neither_way_counts_tokens_of_rank_0_for_those_of_others(ranks):
    """DDP hands out rank 0's buffers before a forward pass: nothing is missing from the sum, so that nobody notices."""
    one, two = ranks[0]["neither"], ranks[1][0]["neither"]
    assert one == ranks[0]["no_sync"]
    assert sum(two["loads 0"]) == sum(one["loads 0"])
    assert two["loads 0"] != one["loads 0"]


def test_the_cache_of_a_latent_holds_no_keys_and_values_of_heads():
    """mlxcel #907, DeepSeek-V3 #305: expanded keys and values were cached, 71 times as many numbers as stated.

    Bytes are counted where they lie, after decoding in either form.
    """
    block = nn.Attention(32, heads=8, latent=6, head_dim=12, rotary_dim=4, value_dim=8)
    block.initialise(generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    for absorbed in (True, False):
        cache = block.empty_cache()
        with torch.no_grad():
            for token in x.split(1, dim=1):
                block(token, cache=cache, absorbed=absorbed)
        held = sum(part.numel() for part in vars(cache)["_room"])
        assert held == 2 * 16 * (6 + 4)
        assert held < 2 * 16 * block.shape.expanded_numbers / 10


COMPILED = """
import torch
from spectrain import nn

runs, made = [], []
def backend(graph, inputs):
    made.append(graph)
    return lambda *args: runs.append(0) or graph.forward(*args)

net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4))
compiled, x = torch.compile(net, backend=backend, fullgraph=True), torch.ones(2, 4)
compiled(x)
assert (len(runs), len(made)) == (1, 1)
with nn.capture(compiled, "1") as seen:
    compiled(x)
assert len(seen["1"]) == 1 and (len(runs), len(made)) == (1, 1), "inside: eager, and nothing is compiled anew"
compiled(x)
assert (len(runs), len(made)) == (2, 1), "afterwards: the same graph, at its own speed"
print("same graph")
"""


def test_after_a_capture_the_old_graph_runs_again():
    """pytorch #173452: to keep hooks users gave up 30 to 50 % of the speed, for good; #117758: or lost the hooks."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "same graph"


def test_nothing_has_to_be_compiled_to_be_installed():
    """torchsort #52, #87 and six more: the package did not build. Here every file of the package is text."""
    root = Path(nn.__file__).parents[1]
    assert {path.suffix for path in root.rglob("*") if path.is_file()} <= {
        ".py",
        ".pyc",
        ".json",
        ".js",
        ".css",
        ".typed",
    }
    build = (root.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert not any(word in build for word in ("cython", "pybind11", "ninja", "cmake", "ext-modules"))
