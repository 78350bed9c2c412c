"""A GPU against float64 on a processor: msign, kernels, Muon and attention; then times beside torch's, and memory.

    python -m benchmarks.optim.gpu                    # on CUDA, at most eight minutes
    python -m benchmarks.optim.gpu --device cpu --width 64 --side 48 --length 16      # the same code, without one

Each check is a number beside the most that it may be: the tolerance that was asked for; the error that a schedule is
designed for and four roundings of its dtype; of our kernels, four roundings and as many of each sum in float32; of
attention, which has no contract of its own, twice the distance from float64 that a processor has in that dtype, and
four roundings. The first that is above ends the program, which then records a failure and no figure. Without a GPU
it says so, records nothing and ends with exit code 77. Kernels are left out where Triton or the device is missing.
"""

import copy
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks._program import MissingError, main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from benchmarks.optim._checks import Check, distance, finished, noise, unit_roundoff
from benchmarks.optim._kernels import chosen, kernel_times, kernels
from spectrain import matfun
from spectrain.nn import Attention
from spectrain.optim import Muon

DTYPES = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 5e-2}
"""The dtypes of msign, and its default tolerance in each."""
MOVED = 1e-4
"""Tolerance of msign in the steps of Muon that are compared."""
ATTENTION = {"plain": {}, "grouped": {"kv_heads": 2}, "latent": {"latent": 16}, "window": {"window": 8}}


def exact_sign(X: Tensor) -> Tensor:
    """U V^T in float64 on the processor, of the matrix as it was rounded."""
    U, _, Vh = torch.linalg.svd(X.cpu().double(), full_matrices=False)
    return U @ Vh


def signs(device: torch.device, side: int) -> Iterator[Check]:
    """By tolerance: square, tall and wide matrices, and a batch."""
    for shape in ((side, side), (2 * side, side), (side, 4 * side), (3, side, side)):
        for name, tol in DTYPES.items():
            X = noise(*shape, seed=1).to(device, getattr(torch, name))
            error = distance(matfun.msign(X, tol=tol), exact_sign(X))
            yield Check(f"msign, tol={tol:g}, {'x'.join(map(str, shape))}, {name}", error, tol)


def fixed_steps(device: torch.device, side: int) -> Iterator[Check]:
    """By five steps: matrices whose singular values fill the interval that the schedule is designed for."""
    for rows, columns in ((side, side), (4 * side, side)):
        left, right = (torch.linalg.qr(noise(size, columns, seed=i))[0] for i, size in enumerate((rows, columns)))
        for name in ("float32", "bfloat16"):
            dtype = getattr(torch, name)
            schedule = matfun.planning.design(5, dtype=dtype)
            S = torch.logspace(0, float(torch.tensor(2 * schedule.interval[0]).log10()), side, dtype=torch.float64)
            X = ((left * S) @ right.mT).to(device, torch.float32)
            (found,) = matfun.msign([X], steps=5, dtype=dtype)
            most = schedule.error + 4 * unit_roundoff(dtype)
            yield Check(f"msign, steps=5, {rows}x{columns}, {name}", distance(found, left @ right.mT), most)


def moves(device: torch.device, side: int, width: int) -> Iterator[Check]:
    """What three steps of Muon add to the weights of a small transformer, with given gradients."""
    torch.manual_seed(0)
    exact = transformer(layers=1, width=width, hidden=2 * width, vocabulary=32).double()
    with torch.no_grad():  # small, so that float32 holds what is added to it
        for p in exact.parameters():
            p.mul_(1e-3)
    model = copy.deepcopy(exact).float().to(device)
    begin = {name: p.detach().clone() for name, p in exact.named_parameters()}
    pairs = [
        (exact, Muon(exact, lr=0.1, weight_decay=0.0, tol=1e-10)),
        (model, Muon(model, lr=0.1, weight_decay=0.0, tol=MOVED)),
    ]
    for step in range(3):
        for net, optimizer in pairs:
            for i, p in enumerate(net.parameters()):
                p.grad = noise(*p.shape, seed=100 * step + i).to(p.device, p.dtype)
            optimizer.step()
    ends = dict(exact.named_parameters())
    for row in pairs[0][1].rows:
        name = row["name"]
        found = dict(model.named_parameters())[name].detach().cpu().double() - begin[name]
        yield Check(f"Muon, {row['algorithm']}, {name}", distance(found, ends[name].detach() - begin[name]), 2 * MOVED)


def attends(device: torch.device, width: int, length: int) -> Iterator[Check]:
    """Attention there and back: its result, and the gradient of its input."""
    for kind, sizes in ATTENTION.items():
        torch.manual_seed(0)
        exact = Attention(width, heads=4, **sizes).double()
        x, g = noise(2, length, width, seed=3), noise(2, length, width, seed=4)
        truth = both(exact, x, g)
        for name in ("float32", "bfloat16"):
            dtype = getattr(torch, name)
            there, here = (
                both(copy.deepcopy(exact).to(place, dtype), x.to(place, dtype), g.to(place, dtype))
                for place in (device, torch.device("cpu"))
            )
            for what, ours, processors, theirs in zip(("result", "gradient"), there, here, truth, strict=True):
                most = 2 * distance(processors, theirs) + 4 * unit_roundoff(dtype)
                yield Check(f"attention, {kind}, {what}, {name}", distance(ours, theirs), most)


def both(layer: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's result, and the gradient of its input for that of the result."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (back,) = torch.autograd.grad(y, x, g)
    return y.detach(), back


def transformer(*, layers: int, width: int, hidden: int, vocabulary: int) -> nn.Module:
    """Embedding, blocks with separate projections and SwiGLU, RMSNorm, untied head, no biases."""

    def block() -> nn.ModuleDict:
        square = {name: nn.Linear(width, width, bias=False) for name in ("query", "key", "value", "output")}
        wide = {name: nn.Linear(width, hidden, bias=False) for name in ("gate", "up")}
        return nn.ModuleDict(square | wide | {"down": nn.Linear(hidden, width, bias=False), "norm": nn.RMSNorm(width)})

    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(vocabulary, width),
            "blocks": nn.ModuleList(block() for _ in range(layers)),
            "head": nn.Linear(width, vocabulary, bias=False),
        }
    )


def torchs_muon(model: nn.Module) -> Callable[[], object]:
    """torch.optim.Muon for the matrices that ours takes, fused AdamW for the rest."""
    rows = {row["name"]: row["algorithm"] for row in Muon(model).rows}
    named = list(model.named_parameters())
    muon = torch.optim.Muon([p for name, p in named if rows[name] == "muon"], adjust_lr_fn="match_rms_adamw")
    rest = torch.optim.AdamW([p for name, p in named if rows[name] == "adamw"], fused=True)
    return lambda: (muon.step(), rest.step())


def steps_of(device: torch.device, layers: int, width: int) -> dict[str, Callable[[], object]]:
    """A step of our Muon and one of torch's with fused AdamW, on equal parameters."""
    found = {}
    for name in ("Muon", "torch Muon"):
        torch.manual_seed(0)
        model = transformer(layers=layers, width=width, hidden=3 * width, vocabulary=4 * width).to(device)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        step = Muon(model, compute_dtype="bfloat16").step if name == "Muon" else torchs_muon(model)
        found[name] = finished(step, device)
    return found


def memory_of(step: Callable[[], object], device: torch.device) -> float | None:
    """Mebibytes by which a step exceeds what is held between steps; None where nobody counts them."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return float(torch.cuda.max_memory_allocated(device) - before) / 2**20


def checked(checks: Iterator[Check], ends: float, clock: Callable[[], float]) -> Iterator[dict[str, object]]:
    """Rows of all checks that hold; TimeoutError at the first that would begin after the end."""
    for check in checks:
        yield check.row()
        if clock() > ends:
            raise TimeoutError(f"the time was up after {check.case}; take smaller sizes, or more --minutes")


def measure(
    *,
    device: str = "cuda",
    minutes: float = 8.0,
    side: int = 768,
    width: int = 256,
    length: int = 512,
    layers: int = 12,
    step_width: int = 1024,
    rounds: int = 15,
) -> Found:
    """All checks, then time and memory of a step; ``side`` of matrices, ``step_width`` of the model that is timed."""
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingError("torch sees no GPU; nothing was checked and nothing recorded")
    where, ends = torch.device(device), time.monotonic() + 60 * minutes
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 is to be float32
    rows: list[dict[str, object]] = []
    ours = list(kernels(where, side))
    for checks in (
        signs(where, side), fixed_steps(where, side), moves(where, side, width), attends(where, width, length),
        (kernel.check() for kernel in ours),
    ):  # fmt: skip
        rows += checked(checks, ends, time.monotonic)
    steps = steps_of(where, layers, step_width)
    times = alternate(steps, rounds=rounds)
    extra = {name: memory_of(step, where) for name, step in steps.items()}
    timed = [{"step": name, "ms": 1e3 * times.median(name), "peak extra MiB": extra[name]} for name in steps]
    tables = [rows, timed, kernel_times(ours, where, rounds), chosen()]
    figures = {
        "checks": len(rows),
        "ratio": times.ratio("Muon", "torch Muon"),
        "place": torch.cuda.get_device_name(where) if where.type == "cuda" else "a processor",
    }
    body = "\n\n".join(show(table) for table in tables if table)
    return Found(rows=[row for table in tables for row in table], body=body, figures=figures)


if __name__ == "__main__":
    main(
        "gpu",
        "On {place}: {checks} checks against float64 hold, and a step of Muon takes {ratio:.2f} of the time of "
        "torch.optim.Muon with fused AdamW",
        measure,
        smoke={"device": "cpu", "side": 12, "width": 16, "length": 12, "layers": 1, "step_width": 16, "rounds": 1},
        missing=77,
    )
