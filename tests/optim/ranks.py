"""Jobs of several ranks: each runs the scenarios named and saves what it found. Started by test_sharded.py.

python tests/optim/ranks.py FOLDER WORLD:SCENARIO,SCENARIO ...
"""

import copy
import dataclasses
import datetime
import functools
import itertools
import multiprocessing
import sys
import time
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spectrain.optim import Matrix, Muon, WeightAverage, clip_grad_norm_, mup, spectra
from spectrain.optim._layout.spread import Team
from spectrain.optim._ranks import moves, over
from spectrain.optim._ranks.buckets import work_space
from spectrain.optim._ranks.cost import Machine, load
from spectrain.optim._variants import variants

ENTRYWISE = {kind: {"decay": "decoupled"} for kind in ("sign", "rows")}
MACHINES = {
    "waits": Machine(flops=1e15, bandwidth=1e15, latency=1.0),  # one exchange is better than two
    "slow": Machine(flops=1e3, bandwidth=1e15, latency=0.0),  # nobody should compute twice
    "small buckets": Machine(flops=1e3, bandwidth=1e15, latency=0.0, batch=1, bucket=1),
    "narrow": Machine(flops=1e15, bandwidth=1e3, latency=0.0),  # send the small thing
}
WAYS = ("waits", "slow", "narrow")
LAYOUTS = {
    "plain": ((7, 5), {}),
    "tall": ((40, 3), {}),
    "wide": ((4, 30), {}),
    "row": ((2, 6), {}),
    "fused": ((12, 8), {"split": (8, 2, 2), "heads": (2, 1, 1)}),
    "heads": ((6, 8), {"heads": (4,), "along": "in"}),
    "experts": ((3, 4, 6), {"batch": 1}),
    "layered": ((2, 3, 4, 5), {"batch": 2}),
    "conv": ((6, 3, 2, 2), {"flatten": True}),
    "grouped": ((6, 2, 3), {"flatten": True, "groups": 3}),
    "transposed": ((8, 6), {"transposed": True, "split": (4, 2)}),
}
VARIANTS = {
    **{variant.name: {"variant": variant.name, "nesterov": variant.name != "adam"} for variant in variants.VARIANTS},
    "spectral": {"decay": "spectral", "maximize": True},
    "cautious": {"decay": "cautious", "scale": "spectral", "tol": 1e-13},
}
SHARED = [variant.name for variant in variants.VARIANTS if variant is not variants.PLAIN] + ["spectral"]


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def placed(tensor, mesh, placements):
    return tensor if mesh is None else distribute_tensor(tensor, mesh, placements)


def trained(mesh, placements, steps=2, dtype=torch.float64, process_group=None, machine=None, **settings):
    """Weights after some steps with given gradients, from parameters placed as asked; and the plan, if any."""
    params, groups = {}, []
    for i, (name, (shape, layout)) in enumerate(LAYOUTS.items()):
        params[name] = nn.Parameter(placed(noise(shape, i).to(dtype), mesh, placements))
        groups.append({"params": [(name, params[name])], "matrix": Matrix(**layout)})
    for name, kind in (("gain", "sign"), ("table", "rows"), ("bias", "adamw")):
        params[name] = nn.Parameter(placed(noise((5, 4), 50).to(dtype), mesh, placements))
        groups.append({"params": [(name, params[name])], "algorithm": kind} | ENTRYWISE.get(kind, {}))
    optimizer = Muon(
        groups, lr=0.1, weight_decay=0.5, compute_dtype="auto", process_group=process_group, machine=machine, **settings
    )
    for step in range(steps):
        for i, p in enumerate(params.values()):
            p.grad = placed(noise(p.shape, 1000 * (step + 1) + i).to(dtype), mesh, placements)
        optimizer.step()
    found = {name: (p.full_tensor() if mesh is not None else p).detach() for name, p in params.items()}
    return found, optimizer


def largest_difference(a, b):
    return max(float((a[name].detach() - b[name].detach()).abs().max()) for name in a)


def methods(optimizer):
    plan = next(plan for plan in optimizer.company._plans.values() if len(plan.members) > 1)
    return sorted({choice.method for choice in plan.choices})


def placements_of(world):
    flat = init_device_mesh("cpu", (world,))
    if world < 4:
        return {"rows": (flat, [Shard(0)]), "columns": (flat, [Shard(1)]), "copies": (flat, [Replicate()])}
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    return {
        "rows": (flat, [Shard(0)]),
        "hybrid": (square, [Replicate(), Shard(0)]),
        "both": (square, [Shard(0), Shard(1)]),
        "nested": (square, [Shard(0), Shard(0)]),
        "pair": (square["inner"], [Shard(0)]),
    }


@functools.cache  # made before the ranks, which inherit it
def alone(name):
    """The weights of one process."""
    return trained(None, None, **VARIANTS[name])[0]


def same_weights(rank, world, folder):
    """Every placement, every layout, every way: the weights of one process."""
    found, seen = {}, {}
    for place, (mesh, placements) in placements_of(world).items():
        for name in WAYS:
            weights, optimizer = trained(mesh, placements, machine=MACHINES[name])
            found[f"{place} {name}"] = largest_difference(weights, alone("plain"))
            seen[f"{place} {name}"] = methods(optimizer)
        for name in VARIANTS if world == 2 else SHARED:
            weights, _ = trained(mesh, placements, **VARIANTS[name])
            found[f"{place} {name}"] = largest_difference(weights, alone(name))
    return {"difference": found, "methods": seen}


def traffic(rank, world, folder):
    """Bytes that a step really sends from this rank, beside what the plan says."""
    sent = []
    exchange = Team.exchange

    def counted(team, outgoing, incoming, like):
        others = [tensor for i, tensors in enumerate(outgoing) if i != team.position for tensor in tensors]
        sent.append(sum(tensor.numel() * tensor.element_size() for tensor in others))
        return exchange(team, outgoing, incoming, like)

    Team.exchange = counted
    found = {}
    for place, (mesh, placements) in placements_of(world).items():
        for name, machine in MACHINES.items():
            sent.clear()
            _, optimizer = trained(mesh, placements, steps=1, dtype=torch.float32, machine=machine)
            plan = next(plan for plan in optimizer.company._plans.values() if len(plan.members) > 1)
            pairs = zip(plan.works, plan.choices, strict=True)
            loads = [load(work, choice) for work, choice in pairs if choice.method != "gram"]
            said = sum(float(entry.sent[plan.team.position]) for entry in loads)
            found[f"{place} {name}"] = (sum(sent), said)
    Team.exchange = exchange
    return found


BLOCKS = {
    "even": {"query": (32, 32), "key": (16, 32), "gate": (96, 32), "down": (32, 96)},
    "uneven": {"query": (50, 33), "key": (17, 33), "gate": (101, 33), "down": (33, 101)},
}
SOME = Machine(flops=1e3, bandwidth=1e15, latency=0.0, bucket=500)


def every_byte(rank, world, folder):
    """Bytes that a step of a block in float32 sends from this rank: matrices, and all that ranks tell each other."""
    sent = {"matrices": 0, "words": 0}
    all_to_all, all_reduce = dist.all_to_all_single, dist.all_reduce

    def exchanged(output, given, counts, sizes, **more):
        others = sum(size for i, size in enumerate(sizes) if i != dist.get_rank(more["group"]))
        sent["matrices"] += others * given.element_size()
        return all_to_all(output, given, counts, sizes, **more)

    def reduced(tensor, *how, **more):
        sent["words"] += 2 * tensor.numel() * tensor.element_size()
        return all_reduce(tensor, *how, **more)

    dist.all_to_all_single, dist.all_reduce = exchanged, reduced
    found = {}
    places = ("rows", "hybrid") if world == 4 else ("rows",)
    for place, name, kind in [(place, *how) for place in places for how in HOW]:
        sent.update(matrices=0, words=0)
        _, optimizer = of_blocks(placements_of(world)[place], BLOCKS[kind], MACHINES[name])
        optimizer.step()
        found[place, name, kind] = dict(sent)
    dist.all_to_all_single, dist.all_reduce = all_to_all, all_reduce
    return found


HOW = [("slow", "even"), ("waits", "even"), ("slow", "uneven"), ("small buckets", "uneven")]


def of_blocks(where, shapes, machine, blocks=2):
    """The matrices of some blocks in float32, with gradients, and an optimizer."""
    matrices = [
        (f"{i}.{key}", nn.Parameter(placed(noise(shape, i).float(), *where)))
        for i in range(blocks)
        for key, shape in shapes.items()
    ]
    for i, (_, p) in enumerate(matrices):
        p.grad = placed(noise(p.shape, 100 + i).float(), *where)
    group = {"params": matrices, "matrix": Matrix()}
    return dict(matrices), Muon([group], lr=0.1, compute_dtype="float32", machine=machine)


def buckets(rank, world, folder):
    """The same matrices in one bucket, in a few and each batch in its own: bits, order of events, bytes held."""
    found = {"weights": {}, "apart": {}, "counts": {}}
    for place in ("rows", "hybrid") if world == 4 else ("rows",):
        where = placements_of(world)[place]
        for name, machine in {"one": MACHINES["slow"], "some": SOME, "each": MACHINES["small buckets"]}.items():
            machine = dataclasses.replace(machine, batch=64)
            weights, optimizer = trained(*where, machine=machine)
            plan = next(plan for plan in optimizer.company._plans.values() if len(plan.members) > 1)
            found["weights"][place, name] = weights
            found["apart"][place, name] = largest_difference(weights, alone("plain"))
            found["counts"][place, name] = len(plan.course.buckets)
    found["events"], found["calls"] = events(placements_of(world)["rows"])
    found["two teams"] = two_teams(world) if world == 4 else 0.0
    found["held"] = [held(placements_of(world)["rows"], at_once=at_once) for at_once in (False, True)]
    return found


def two_teams(world):
    """Of ranks 0 and 1 the pair comes before all four, of 2 and 3 after: buckets and sums of Gram matrices of both."""
    places, weights = placements_of(world), {}
    for on in ("ranks", "one process"):
        params = {}
        for i, (name, shape) in enumerate({"tall": (40, 3), "plain": (7, 5), "square": (9, 9)}.items()):
            for place in ("pair", "rows"):
                where = places[place] if on == "ranks" else (None, None)
                p = params[f"{place} {name}"] = nn.Parameter(placed(noise(shape, i), *where))
                p.grad = placed(noise(shape, 10 + i), *where)
        group = {"params": list(params.items()), "matrix": Matrix()}
        Muon([group], lr=0.1, machine=dataclasses.replace(MACHINES["narrow"], bucket=1)).step()
        weights[on] = {n: p.full_tensor() if isinstance(p, DTensor) else p.detach() for n, p in params.items()}
    return largest_difference(weights["ranks"], weights["one process"])


def events(where):
    """What this rank does in a step, in order: exchanges begun and awaited, msign; and the calls of each bucket."""
    seen, numbers = [], itertools.count()
    all_to_all, msign_all = dist.all_to_all_single, over.msign_all

    class Watched:
        def __init__(self, work):
            self.work, self.number = work, next(numbers)
            seen.append(("begin", self.number))

        def wait(self):
            seen.append(("wait", self.number))
            return self.work.wait()

    def begun(*args, **more):
        assert more["async_op"]
        return Watched(all_to_all(*args, **more))

    def computed(*args):
        seen.append(("msign", None))
        return msign_all(*args)

    _, optimizer = of_blocks(where, BLOCKS["uneven"], MACHINES["small buckets"], blocks=4)
    dist.all_to_all_single, over.msign_all = begun, computed
    optimizer.step()
    dist.all_to_all_single, over.msign_all = all_to_all, msign_all
    (plan,) = optimizer.company._plans.values()
    calls = [sum(plan.team.position in batch.computers for batch in bucket) for bucket in plan.course.buckets]
    return seen, calls


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and not yet let go."""

    def __init__(self, known):
        super().__init__()
        self.now = self.most = 0
        self.seen = {t.untyped_storage()._cdata: None for t in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.seen:
                storage = tensor.untyped_storage()
                place, size = storage._cdata, storage.nbytes()
                self.seen[place] = weakref.ref(storage, lambda _, place=place, size=size: self.gone(place, size))
                self.now += size
                self.most = max(self.most, self.now)
        return out

    def gone(self, place, size):
        del self.seen[place]
        self.now -= size


def held(where, *, at_once):
    """Bytes alive at the fullest moment of a step, without the updates and with an msign that needs none; the plan's.

    Two matrices of 768 bytes a bucket; ``at_once``: all that there are, whatever the plan says.
    """
    msign_all, updates_over, most = over.msign_all, moves.updates_over, []

    def watched(names, averages, settings, plans):
        for plan, _ in plans if at_once else []:
            every = [batch for bucket in plan.course.buckets for batch in bucket]
            plan.course = plan.course._replace(buckets=[every])
        alive = Alive(averages)
        with alive:
            result = updates_over(names, averages, settings, plans)
        most.append(alive.most - sum(a.numel() * a.element_size() for a in averages))
        return result

    machine = dataclasses.replace(MACHINES["slow"], batch=1, bucket=1600)
    _, optimizer = of_blocks(where, {"square": (16, 12)}, machine, blocks=48)
    over.msign_all, moves.updates_over = lambda pieces, settings: [[X / 100 for X in own] for own in pieces], watched
    company = optimizer._company()
    optimizer.step()
    over.msign_all, moves.updates_over = msign_all, updates_over
    (plan,) = company._plans.values()
    return most[0], work_space(plan.works, plan.choices, plan.course), len(plan.course.buckets)


def low_precision(rank, world, folder):
    """bfloat16 weights on ranks against one process."""
    mesh = init_device_mesh("cpu", (world,))
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        expected, _ = trained(None, None, dtype=dtype)
        got, _ = trained(mesh, [Shard(0)], dtype=dtype)
        found[str(dtype)] = max(float((got[n] - expected[n]).float().norm() / expected[n].float().norm()) for n in got)
    return found


def any_size(rank, world, folder):
    """Rows of tiny and of huge entries, cut between ranks: what moves by rows, and each variant."""
    mesh, found = init_device_mesh("cpu", (world,)), {}
    for name, group in {
        "rows": {"algorithm": "rows"},
        **{v.name: {"variant": v.name} for v in variants.VARIANTS},
    }.items():
        moved = []
        for on in (mesh, None):
            p = nn.Parameter(placed(torch.zeros(4, 6), on, [Shard(1)]))
            sizes = torch.tensor([1e-30, 1e-42, 1.0, 1e18])[:, None]
            p.grad = placed((noise((4, 6), 5) * sizes).float(), on, [Shard(1)])
            Muon([{"params": [p], **group}], lr=1.0, weight_decay=0.0, scale="none", compute_dtype="float32").step()
            moved.append(p.full_tensor() if on is not None else p.detach())
        found[name] = float((moved[0] - moved[1]).detach().abs().max())
    return found


def shared_work(rank, world, folder):
    """DistributedDataParallel: every rank has everything; the group shares the work of msign."""
    expected, _ = trained(None, None)
    weights, optimizer = trained(None, None, process_group=dist.group.WORLD, machine=MACHINES["slow"])
    (plan,) = optimizer.company._plans.values()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    alone = copy.deepcopy(model)
    data = noise((8, 6), 3)
    ddp = DistributedDataParallel(model)
    two, one = Muon(ddp, lr=0.1, process_group=dist.group.WORLD), Muon(alone, lr=0.1)
    share = data.chunk(world)[rank]
    for _ in range(3):
        for net, optimizer, batch in ((ddp, two, share), (alone, one, data)):
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
    return {
        "difference": largest_difference(weights, expected),
        "ddp": largest_difference(dict(model.named_parameters()), dict(alone.named_parameters())),
        "matrices": [len(plan.mine), len(plan.works)],
    }


class Net(nn.Module):
    def __init__(self, width=10):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width + 1)
        self.down = nn.Linear(3 * width + 1, width, bias=False)
        self.narrow = nn.Linear(width, 1)
        self.head = nn.Linear(width, 9, bias=False)
        self.double()

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(x) * (2 + self.narrow(x))


def sharded_net(mesh):
    model = Net()
    fully_shard([model.up, model.down], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def go_on(model, optimizer, steps, clip=None, average=None):
    for step in steps:
        tokens = torch.randint(0, 9, (32, 8), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten()).backward()
        if clip is not None:
            clip_grad_norm_(optimizer, clip)
        optimizer.step()
        if average is not None:
            average.update()


def full(model):
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in model.named_parameters()
    }


def fsdp(rank, world, folder):
    """fully_shard, clipping, averages and spectra: as one process has them."""
    model, alone = sharded_net(init_device_mesh("cpu", (world,))), Net()
    two, one = Muon(model, lr=1e-2), Muon(alone, lr=1e-2)
    averages = WeightAverage(model, half_lives=[2, 5]), WeightAverage(alone, half_lives=[2, 5])
    go_on(model, two, range(4), clip=0.1, average=averages[0])
    go_on(alone, one, range(4), clip=0.1, average=averages[1])
    with averages[0].applied(3), averages[1].applied(3):
        averaged = largest_difference(full(model), full(alone))
    back = largest_difference(full(model), full(alone))
    rows = spectra(model, two), spectra(alone, one)
    difference = largest_difference(full(model), full(alone))
    compiled = torch.compile(two.step, backend="eager") if world == 2 else two.step
    for step, optimizer in ((compiled, two), (one.step, one)):
        net = model if optimizer is two else alone
        optimizer.zero_grad()
        net(torch.arange(9)[None]).square().mean().backward()
        step()
    return {
        "compiled": largest_difference(full(model), full(alone)),
        "difference": difference,
        "averaged": averaged,
        "back": back,
        "spectra": max(abs(a["update_rms"] - b["update_rms"]) for a, b in zip(*rows, strict=True)),
        "polar": max(abs(a["polar_error"] - b["polar_error"]) for a, b in zip(*rows, strict=True)),
        "empty": any(p.to_local().numel() == 0 for p in model.parameters()),
    }


def checkpoint(rank, world, folder):
    """Take over what the last job saved, on however many ranks, do three steps, save."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model = sharded_net(init_device_mesh("cpu", (world,)))
    optimizer = Muon(model, lr=1e-2, variant="normuon")
    average = WeightAverage(model, half_lives=[2, 5])
    shared = Path(folder).parent
    done = int((shared / "steps").read_text()) if (shared / "steps").exists() else 0
    if done:
        weights, states = get_state_dict(model, optimizer)
        saved = {"model": weights, "optimizer": states, "average": average.state_dict()}
        dcp.load(saved, checkpoint_id=shared / f"checkpoint{done}")
        set_state_dict(model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        average.load_state_dict(saved["average"])
    go_on(model, optimizer, range(done, done + 3), average=average)
    weights, states = get_state_dict(model, optimizer)
    saved = {"model": weights, "optimizer": states, "average": average.state_dict()}
    dcp.save(saved, checkpoint_id=shared / f"checkpoint{done + 3}")
    dist.barrier()
    if rank == 0:
        (shared / "steps").write_text(str(done + 3))
    alone = Net()
    one, other = Muon(alone, lr=1e-2, variant="normuon"), WeightAverage(alone, half_lives=[2, 5])
    go_on(alone, one, range(done + 3), average=other)
    with average.applied(5), other.applied(5):
        averaged = largest_difference(full(model), full(alone))
    return {"difference": largest_difference(full(model), full(alone)), "averaged": averaged, "done": done + 3}


def message(call):
    try:
        call()
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def refusals(rank, world, folder):
    """What would hang or go wrong silently: the same error on every rank, and nothing changed."""
    mesh = init_device_mesh("cpu", (world,))
    found = {}
    for case in ("nan", "missing"):
        p = nn.Parameter(distribute_tensor(noise((8, 4), 0), mesh, [Shard(0)]))
        p.grad = distribute_tensor(noise((8, 4), 1), mesh, [Shard(0)])
        if rank == world - 1 and case == "nan":
            p.grad.to_local().fill_(float("nan"))
        if rank == world - 1 and case == "missing":
            p.grad = None
        optimizer = Muon([("weight", p)])
        found[case] = message(optimizer.step)
        found[f"{case} unchanged"] = bool(torch.equal(p.full_tensor(), noise((8, 4), 0)))
    found |= unproven(mesh)
    partial = nn.Parameter(DTensor.from_local(noise((8, 4), 0), mesh, [Partial()]))
    found["partial"] = message(lambda: Muon([("weight", partial)]))
    model = Net()
    early = Muon(model)
    fully_shard(model, mesh=mesh)
    go = torch.randint(0, 9, (4, 5))
    model(go).sum().backward()
    found["early"] = message(early.step)
    return found


def unproven(mesh):
    """A tolerance that the one rank which has the matrix cannot prove; plain and sharded, one variant with averages."""
    found = {}
    for case, settings in {"plain": {}, "sharded": {}, "normuon": {"variant": "normuon"}}.items():
        params = {name: noise((6, 4), i) for i, name in enumerate("abcd")}
        on = None if case == "plain" else mesh
        params = {name: nn.Parameter(placed(value, on, [Shard(0)])) for name, value in params.items()}
        for i, (name, p) in enumerate(params.items()):
            U, _, Vh = torch.linalg.svd(noise((6, 4), 10 + i), full_matrices=False)
            smallest = 1e-13 if name == "c" else 1e-2
            p.grad = placed((U * torch.tensor([1.0, 1.0, 0.5, smallest], dtype=torch.float64)) @ Vh, on, [Shard(0)])
        group = dist.group.WORLD if on is None else None
        optimizer = Muon(params.items(), tol=1e-11, process_group=group, machine=MACHINES["slow"], **settings)
        found[f"unproven {case}"] = message(optimizer.step)
        whole = {name: p.detach() if on is None else p.full_tensor() for name, p in params.items()}
        found[f"unproven {case} unchanged"] = all(
            torch.equal(value, noise((6, 4), i)) for i, value in enumerate(whole.values())
        )
    return found


def weights_of(seed=0):
    return {name: noise(shape, seed + i).float() for i, (name, shape) in enumerate({"a": (6, 4), "b": (6, 4)}.items())}


def pair(rank, *, order=("a", "b"), named=True, seed=0, groups=None, gradients=0, **settings):
    """An optimizer of two equal shapes that share their work over all ranks, with gradients, and its parameters."""
    params = {name: nn.Parameter(value) for name, value in weights_of(seed).items()}
    for i, p in enumerate(params.values()):
        p.grad = noise(p.shape, 90 + i + gradients).float()
    given = [(name, params[name]) if named else params[name] for name in order]
    groups = [{"params": given}] if groups is None else [{"params": [item], **group} for item, group in groups(given)]
    return params, Muon(groups, **{"process_group": dist.group.WORLD, **settings})


def odd(rank, usual, other):
    """What the last rank says where the others say something else."""
    return other if rank == dist.get_world_size() - 1 else usual


def algorithms(first, second):
    return lambda given: list(zip(given, [{"algorithm": first}, {"algorithm": second}], strict=True))


def other_settings(rank):
    """Settings that differ on one rank."""
    from spectrain import approx

    kinds = {
        "lr": (0.1, 0.2),
        "weight_decay": (0.1, 0.0),
        "momentum": (0.9, 0.8),
        "nesterov": (True, False),
        "scale": ("none", "spectral"),
        "steps": (5, 4),
        "tol": (1e-2, 1e-3),
        "schedule": (approx.sign_schedule(0.1, steps=2), approx.sign_schedule(0.2, steps=2)),
        "variant": ("plain", "normuon"),
        "decay": ("decoupled", "spectral"),
        "compute_dtype": ("float32", "bfloat16"),
        "maximize": (False, True),
        "machine": (Machine(flops=1e12), Machine(flops=1e3)),
        "beta2": (0.9, 0.95),
        "check_finite": (True, False),
    }
    return {name: {name: odd(rank, *values)} for name, values in kinds.items()}


def disagreements(rank, world, folder):
    """Ranks that do not do the same: one error on all of them that says what differs where, and nothing changed."""
    cases = {
        **other_settings(rank),
        "order": {"order": odd(rank, ("a", "b"), ("b", "a"))},
        "unnamed": {"order": odd(rank, ("a", "b"), ("b", "a")), "named": False},
        "missing": {"order": odd(rank, ("a", "b"), ("a",))},
        "weights": {"seed": odd(rank, 0, 7)},
        "gradients": {"gradients": odd(rank, 0, 5)},
        "algorithm": {"groups": algorithms("muon", odd(rank, "muon", "adamw"))},
        "nothing for muon": {"groups": algorithms(odd(rank, "muon", "adamw"), odd(rank, "muon", "adamw"))},
        "layout": {"groups": lambda given: [(given[0], {"matrix": {"split": odd(rank, (3, 3), (4, 2))}})]},
    }
    found = {}
    for name, case in cases.items():
        params, optimizer = pair(rank, **case)
        before = weights_of(case.get("seed", 0))
        found[name] = message(optimizer.step)
        found[f"{name} unchanged"] = all(torch.equal(p.detach(), before[key]) for key, p in params.items())
    return found | later(rank)


def later(rank):
    """Differences that come after the first step: a scheduler's rate, a group added, NaN where no team looks."""
    found = {}
    _, optimizer = pair(rank)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = torch.tensor(odd(rank, 0.5, 0.25))
    found["tensor lr later"] = message(optimizer.step)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5) if rank else 0.5
    found["equal numbers"] = message(optimizer.step)
    if rank:
        optimizer.add_param_group({"params": [("c", nn.Parameter(torch.ones(3, 3)))]})
    found["group later"] = message(optimizer.step)
    params, optimizer = pair(rank, groups=algorithms("muon", "adamw"))
    params["b"].grad.fill_(odd(rank, 1.0, float("nan")))
    found["nan of adamw"] = message(optimizer.step)
    return found


def mup_sharded(rank, world, folder):
    """muP before and after fully_shard: the same weights, the same factors, and steps of one process."""
    mesh = init_device_mesh("cpu", (world,))
    alone, early, late = Net(), Net(), Net()
    for model in (alone, early):
        mup(model, base_width=2).initialise(generator=3)
    for model in (early, late):
        fully_shard(model, mesh=mesh)
    mup(late, base_width=2).initialise(generator=3)
    found = {}
    go = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(0))
    for name, model in (("alone", alone), ("early", early), ("late", late)):
        groups = mup(model, base_width=2).groups("muon", lr=0.1)
        found[f"{name} rates"] = {n: group["lr_factor"] for group in groups for n, _ in group["params"]}
        optimizer = Muon(groups, tol=1e-10)
        model(go).square().sum().backward()
        optimizer.step()
        named = model.named_parameters()
        found[name] = {n: p.full_tensor() if isinstance(p, DTensor) else p.detach() for n, p in named}
    return found


STEPS = (
    same_weights,
    traffic,
    every_byte,
    buckets,
    low_precision,
    any_size,
    shared_work,
    fsdp,
    mup_sharded,
    checkpoint,
    refusals,
    disagreements,
)
SCENARIOS = {f.__name__: f for f in STEPS}


def run(rank, world, folder, names):
    """One rank of one job."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=120),
    )
    torch.save({name: SCENARIOS[name](rank, world, folder) for name in names}, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main():
    """Jobs one after the other, their ranks forked from this process, which has imported everything already."""
    fork = multiprocessing.get_context("fork")
    if any("same_weights" in job or "buckets" in job for job in sys.argv[2:]):
        torch.set_num_threads(1)
        for name in VARIANTS:  # which the ranks inherit
            alone(name)
    for number, job in enumerate(sys.argv[2:]):
        world, names = job.split(":")
        folder = Path(sys.argv[1]) / f"job{number}"
        folder.mkdir()
        ranks = [fork.Process(target=run, args=(i, int(world), folder, names.split(","))) for i in range(int(world))]
        for process in ranks:
            process.start()
        while any(process.is_alive() for process in ranks):
            if any(process.exitcode for process in ranks):
                for process in ranks:
                    process.terminate()
                sys.exit(f"job {job}: a rank failed")
            time.sleep(0.02)
        if any(process.exitcode for process in ranks):
            sys.exit(f"job {job}: a rank failed")


if __name__ == "__main__":
    main()
