"""Time of one optimizer step on a real parameter set: ours beside torch.optim.Muon (with AdamW for the rest) and AdamW.

    python benchmarks/muon_step.py            a 4-layer transformer of width 256
    python benchmarks/muon_step.py --large    the shapes of GPT-2 small
    python benchmarks/muon_step.py --smoke    a few small matrices, nothing is recorded

The optimizers take turns, so that all see the same machine; a ratio is the median over rounds of the ratio within
a round. Before the first round a tensor of 24 MiB is freed, as training does all the time: the C library keeps memory
for later tensors from then on, and no step waits for fresh pages. Beside the time stands the polar error of each
Muon's msign on Gaussian matrices of these shapes, for equal steps are not equal work well done. Memory is what a step
needs for a moment above what is held between steps, in a process of its own.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import argparse
import datetime
import gc
import json
import multiprocessing
import multiprocessing.connection
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz

from spectrain import matfun
from spectrain.approx import Schedule, sign_schedule
from spectrain.nn import LanguageModel
from spectrain.optim import Muon
from spectrain.optim._step.update import working_dtype

RECORDS = Path(__file__).parent / "records"
Step = Callable[[], object]


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


def models(size: str) -> nn.Module:
    """The parameter set of a size, with gradients."""
    torch.manual_seed(0)
    if size == "large":
        model = gpt2()
    elif size == "smoke":
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
    "torch Muon + fused AdamW": lambda model: torchs_muon(model, fused=True),
    "torch AdamW": lambda model: torch.optim.AdamW(model.parameters()).step,
    "torch fused AdamW": lambda model: torch.optim.AdamW(model.parameters(), fused=True).step,
}


def chosen(size: str) -> list[str]:
    """All optimizers; of the large set Muon in bfloat16 and its closest peer."""
    return [name for name in OPTIMIZERS if size != "large" or ("Muon" in name and "float32" not in name)]


def interleaved(size: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each optimizer in each round, after one round to warm up."""
    steps = {name: OPTIMIZERS[name](models(size)) for name in chosen(size)}
    torch.empty(3 * 2**21).fill_(0)  # 24 MiB, freed at once; from 32 MiB on glibc learns nothing from it
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def high_water() -> float:
    """Mebibytes of the largest resident size since the mark was last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def growth(name: str, size: str, pipe: multiprocessing.connection.Connection) -> None:
    """Send the mebibytes by which a step exceeds what is held between steps."""
    step = OPTIMIZERS[name](models(size))
    step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    step()
    pipe.send(high_water() - before)


def memory(size: str) -> dict[str, float]:
    """``growth`` of each optimizer, each in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        return {}
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in chosen(size):
        mine, theirs = context.Pipe()
        process = context.Process(target=growth, args=(name, size, theirs))
        process.start()
        found[name] = mine.recv()
        process.join()
    return found


def signs(X: Tensor) -> dict[str, Tensor]:
    """msign as each Muon computes it."""
    dtype = working_dtype("auto", X)
    found = {"torch Muon": _zeropower_via_newtonschulz(X.clone(), (3.4445, -4.775, 2.0315), 5, 1e-7)}
    for name, steps in (("Muon", 5), ("Muon, steps=3", 3)):
        found[name] = matfun.msign([X], steps=steps, dtype=dtype)[0]
    for steps, lower in ((4, 0.006), (3, 0.03), (2, 0.07)):
        found[f"Muon, {steps} on [{lower:g}, 1]"] = matfun.msign([X], schedule=quintics(steps, lower), dtype=dtype)[0]
    return found | {"Muon, float32": matfun.msign([X], steps=5)[0]}


def polar_errors(size: str) -> dict[str, float]:
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
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()
        middle = time.perf_counter()
        optimizer.step()
        times.append((middle - start, time.perf_counter() - middle))
    return statistics.median(t for t, _ in times[1:]), statistics.median(t for _, t in times[1:])


def ratio(seconds: dict[str, list[float]], name: str, other: str) -> tuple[float, float, float]:
    """Quartiles over rounds of the time of one divided by that of another in the same round."""
    values = [a / b for a, b in zip(seconds[name], seconds[other], strict=True)]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, middle, high


def machine() -> dict[str, object]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": names[0] if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "none",
        "iteration dtype of Muon": str(working_dtype("auto", torch.zeros(1, 1))),
    }


def markdown(record: dict) -> str:
    """The record for people."""
    counts = (
        f"{record['matrices']} matrices with {record['matrix_elements']:,} elements of {record['elements']:,}. "
        f"{record['rounds']} rounds, interleaved, {record['machine']['threads']} thread(s)."
    )
    lines = [
        f"# Optimizer step, {record['parameters']} ({record['date']})",
        "",
        counts,
        "",
        "| optimizer | median ms | least | ratio to torch Muon + fused AdamW | peak extra MiB | polar error | slope |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in record["seconds"].items():
        low, middle, high = record["ratios"][name]
        error = record["polar_errors"].get(name, record["polar_errors"]["torch Muon"] if "torch Muon" in name else None)
        slope = record["slopes"].get("torch Muon" if "torch Muon" in name else name)
        lines.append(
            f"| {name} | {1e3 * statistics.median(values):.1f} | {1e3 * min(values):.1f} | "
            f"{middle:.2f} ({low:.2f} to {high:.2f}) | {record['memory'].get(name, float('nan')):.0f} | "
            f"{'' if error is None else f'{error:.3f}'} | {'' if slope is None else f'{slope:.0f}'} |"
        )
    if record["share"]:
        passes, step = record["share"]
        of = f"{step / (passes + step):.1%} of the training step"
        lines += [
            "",
            f"The default model on 16 x 256 tokens: passes {1e3 * passes:.0f} ms, Muon {1e3 * step:.0f} ms, {of}.",
        ]
    lines += ["", "Slope: what msign makes of a singular value of 1e-4 of the largest, over that value."]
    lines += ["", *(f"- {key}: {value}" for key, value in record["machine"].items()), ""]
    return "\n".join(lines)


def measured(size: str, rounds: int) -> dict:
    """Everything about one parameter set."""
    model = models(size)
    rows = Muon(model).rows
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    seconds = interleaved(size, rounds)
    return {
        "date": datetime.date.today().isoformat(),
        "parameters": {"large": "GPT-2 small", "smoke": "smoke"}.get(size, "4 layers, width 256"),
        "elements": sum(sizes.values()),
        "matrices": sum(row["algorithm"] == "muon" for row in rows),
        "matrix_elements": sum(sizes[row["name"]] for row in rows if row["algorithm"] == "muon"),
        "rounds": rounds,
        "seconds": seconds,
        "ratios": {name: ratio(seconds, name, "torch Muon + fused AdamW") for name in seconds},
        "polar_errors": polar_errors(size),
        "slopes": slopes(),
        "share": share(5) if size == "small" else None,
        "memory": {} if size == "smoke" else memory(size),
        "machine": machine(),
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the shapes of GPT-2 small")
    parser.add_argument("--smoke", action="store_true", help="a few small matrices; nothing is recorded")
    parser.add_argument("--rounds", type=int, default=None, help="timed rounds (default 15, large 3, smoke 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = "smoke" if options.smoke else "large" if options.large else "small"
    record = measured(size, options.rounds or {"smoke": 2, "large": 3, "small": 15}[size])
    print(markdown(record))
    if size != "smoke":
        stem = RECORDS / f"{record['date']}_muon_step{'_large' if size == 'large' else ''}"
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        stem.with_suffix(".md").write_text(markdown(record))
        print(f"recorded in {stem}.md and .json")


if __name__ == "__main__":
    main()
