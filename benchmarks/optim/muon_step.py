"""Time of one optimizer step on a real parameter set: ours beside torch.optim.Muon (with AdamW for the rest) and AdamW.

    python -m benchmarks.optim.muon_step                            # a 4-layer transformer of width 256
    python -m benchmarks.optim.muon_step --size large --rounds 3    # the shapes of GPT-2 small

The optimizers take turns, so that all see the same machine; a ratio is the median over rounds of the ratio within
a round. Before the first round a tensor of 24 MiB is freed, as training does all the time: the C library keeps memory
for later tensors from then on, and no step waits for fresh pages. Beside the time stands the polar error of each
Muon's msign on Gaussian matrices of these shapes, for equal steps are not equal work well done. Memory is what a step
needs for a moment above what is held between steps, in a process of its own.
"""

import gc
import multiprocessing
import multiprocessing.connection
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import Times, alternate
from benchmarks.matfun._peers import newton_schulz
from spectrain import matfun
from spectrain.approx import Schedule, sign_schedule
from spectrain.nn import LanguageModel
from spectrain.optim import Muon
from spectrain.optim._step.update import working_dtype

Step = Callable[[], object]
Size = Literal["small", "large", "tiny"]
PEER = "torch Muon + fused AdamW"


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


def gpt2() -> nn.Module:
    """The parameters of GPT-2 small, as nn.Linear: fused query-key-value, biases, head tied to the embedding."""

    def block() -> nn.ModuleDict:
        shapes = {"qkv": (768, 2304), "output": (768, 768), "up": (768, 3072), "down": (3072, 768)}
        return nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()} | {"norm": nn.LayerNorm(768)})

    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(50257, 768),
            "positions": nn.Embedding(1024, 768),
            "blocks": nn.ModuleList(block() for _ in range(12)),
            "head": nn.Linear(768, 50257, bias=False),
        }
    )
    model["head"].weight = model["embedding"].weight
    return model


def models(size: Size) -> nn.Module:
    """The parameter set of a size, with gradients."""
    torch.manual_seed(0)
    if size == "large":
        model = gpt2()
    elif size == "tiny":
        model = transformer(layers=1, width=32, hidden=64, vocabulary=64)
    else:
        model = transformer(layers=4, width=256, hidden=704, vocabulary=256)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def quintics(steps: int, lower: float) -> Schedule:
    """So many quintics for singular values down to ``lower``; nothing is finished after them."""
    return sign_schedule(lower, steps=steps, dtype=str(working_dtype("auto", torch.zeros(1, 1))).removeprefix("torch."))


def torchs_muon(model: nn.Module, **adamw: object) -> Step:
    """torch.optim.Muon for the same matrices, AdamW for the rest."""
    rows = {row["name"]: row["algorithm"] for row in Muon(model).rows}
    named = list(model.named_parameters())
    muon = torch.optim.Muon([p for name, p in named if rows[name] == "muon"], adjust_lr_fn="match_rms_adamw")
    rest = torch.optim.AdamW([p for name, p in named if rows[name] == "adamw"], **adamw)  # type: ignore[arg-type]
    return lambda: (muon.step(), rest.step())


OPTIMIZERS: dict[str, Callable[[nn.Module], Step]] = {
    "Muon": lambda model: Muon(model).step,
    "Muon, steps=3": lambda model: Muon(model, steps=3).step,
    "Muon, 4 on [0.006, 1]": lambda model: Muon(model, schedule=quintics(4, 6e-3)).step,
    "Muon, 3 on [0.03, 1]": lambda model: Muon(model, schedule=quintics(3, 0.03)).step,
    "Muon, 2 on [0.07, 1]": lambda model: Muon(model, schedule=quintics(2, 0.07)).step,
    "Muon, float32": lambda model: Muon(model, compute_dtype="float32").step,
    "torch Muon + AdamW": torchs_muon,
    PEER: lambda model: torchs_muon(model, fused=True),
    "torch AdamW": lambda model: torch.optim.AdamW(model.parameters()).step,
    "torch fused AdamW": lambda model: torch.optim.AdamW(model.parameters(), fused=True).step,
}


def names_of(size: Size) -> list[str]:
    """All optimizers; of the large set Muon in bfloat16 and its closest peer."""
    return [name for name in OPTIMIZERS if size != "large" or ("Muon" in name and "float32" not in name)]


def time_steps(size: Size, rounds: int) -> Times:
    """Seconds of each optimizer in each round, after one round to warm up."""
    steps = {name: OPTIMIZERS[name](models(size)) for name in names_of(size)}
    torch.empty(3 * 2**21).fill_(0)  # 24 MiB, freed at once; from 32 MiB on glibc learns nothing from it
    return alternate(steps, rounds=rounds)


def high_water() -> float:
    """Mebibytes of the largest resident size since the mark was last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def growth(name: str, size: Size, pipe: multiprocessing.connection.Connection) -> None:
    """Send the mebibytes by which a step exceeds what is held between steps."""
    step = OPTIMIZERS[name](models(size))
    step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    step()
    pipe.send(high_water() - before)


def memory(size: Size) -> dict[str, float]:
    """``growth`` of each optimizer, each in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        return {}
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in names_of(size):
        mine, theirs = context.Pipe()
        process = context.Process(target=growth, args=(name, size, theirs))
        process.start()
        found[name] = mine.recv()
        process.join()
    return found


def signs(X: Tensor) -> dict[str, Tensor]:
    """msign as each Muon computes it."""
    dtype = working_dtype("auto", X)
    found = {"torch Muon": newton_schulz(X.clone())}
    for name, steps in (("Muon", 5), ("Muon, steps=3", 3)):
        found[name] = matfun.msign([X], steps=steps, dtype=dtype)[0]
    for steps, lower in ((4, 0.006), (3, 0.03), (2, 0.07)):
        found[f"Muon, {steps} on [{lower:g}, 1]"] = matfun.msign([X], schedule=quintics(steps, lower), dtype=dtype)[0]
    return found | {"Muon, float32": matfun.msign([X], steps=5)[0]}


def polar_errors(size: Size) -> dict[str, float]:
    """Mean relative polar error of one msign over a Gaussian matrix of each shape."""
    shapes = {p.shape for name, p in models(size).named_parameters() if p.ndim == 2 and "blocks" in name}
    errors: dict[str, list[float]] = defaultdict(list)
    for shape in sorted(shapes):
        X = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        U, _, Vh = torch.linalg.svd(X.double(), full_matrices=False)
        for name, Y in signs(X).items():
            errors[name].append(float((Y.double() - U @ Vh).norm() / Vh.shape[0] ** 0.5))
    return {name: statistics.mean(values) for name, values in errors.items()}


def slopes() -> dict[str, float]:
    """How much each msign raises a singular value of 1e-4 of the largest, in a 256 x 256 Gaussian matrix otherwise."""
    U, S, Vh = torch.linalg.svd(torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).double())
    S[-1] = 1e-4 * S[0]
    X = ((U * S) @ Vh).float()
    return {name: float(U[:, -1] @ Y.double() @ Vh[-1]) * 1e4 for name, Y in signs(X).items()}


def share(rounds: int) -> tuple[float, float]:
    """Median seconds of forward and backward of the default model of `spectrain train`, and of Muon's step."""
    model = LanguageModel(vocabulary=4096, width=256, depth=4, heads=4, kv_heads=2, generator=0)
    optimizer = Muon(model)
    tokens = torch.randint(0, 4096, (16, 257), generator=torch.Generator().manual_seed(0))

    def passes() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()

    times = alternate({"passes": passes, "step": optimizer.step}, rounds=rounds)
    return times.median("passes"), times.median("step")


def report(rows: list[dict], counts: str, passes: tuple[float, float] | None) -> str:
    """The record for people."""
    text = [counts, _record.show(rows)]
    if passes:
        of = f"{passes[1] / sum(passes):.1%} of the training step"
        both = f"passes {1e3 * passes[0]:.0f} ms, Muon {1e3 * passes[1]:.0f} ms"
        text.append(f"The default model on 16 x 256 tokens: {both}, {of}.")
    text.append("Slope: what msign makes of a singular value of 1e-4 of the largest, over that value.")
    return "\n\n".join(text)


def measure(*, size: Size = "small", rounds: int = 15, with_memory: bool = True, passes: int = 5) -> Found:
    """One parameter set; ``passes`` rounds of forward and backward beside the step, none for 0."""
    model = models(size)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    matrices = [sizes[row["name"]] for row in Muon(model).rows if row["algorithm"] == "muon"]
    times = time_steps(size, rounds)
    memories, errors, raised = memory(size) if with_memory else {}, polar_errors(size), slopes()
    rows = []
    for name in times:
        low, middle, high = times.quartiles(name, PEER)
        sign = "torch Muon" if "torch Muon" in name else name
        rows.append(
            {
                "optimizer": name,
                "median ms": 1e3 * times.median(name),
                "least ms": 1e3 * min(times[name]),
                "ratio": middle,
                "from": low,
                "to": high,
                "peak extra MiB": memories.get(name),
                "polar error": errors.get(sign),
                "slope": raised.get(sign),
            }
        )
    parameters = {"large": "GPT-2 small", "tiny": "A few matrices"}.get(size, "4 layers, width 256")
    counts = (
        f"{parameters}: {len(matrices)} matrices with {sum(matrices):,} elements of {sum(sizes.values()):,}. Ratio: to "
        f"{PEER}, the median of {rounds} rounds and its quartiles. Working dtype of Muon: "
        f"{str(working_dtype('auto', torch.zeros(1, 1)))[6:]}."
    )
    spent = share(passes) if passes else None
    ratios = {f"{row['optimizer']}: time over {PEER}": row["ratio"] for row in rows}
    figures = {"ratio": rows[0]["ratio"], "error": errors["Muon"] / errors["torch Muon"], **ratios}
    data = {"seconds": dict(times), "share": spent, "elements": sum(sizes.values())}
    body, part = report(rows, counts, spent), "" if size == "small" else size
    return Found(rows=rows, body=body, figures=figures, data=data, part=part)


if __name__ == "__main__":
    main(
        "muon_step",
        "A step of Muon takes {ratio:.2f} of the time of torch.optim.Muon with fused AdamW, at {error:.2f} of its "
        "polar error",
        measure,
        smoke={"size": "tiny", "rounds": 1, "with_memory": False, "passes": 0},
        check={"rounds": 3, "with_memory": False, "passes": 0},
    )
