"""One step of Muon on four sets of parameters, beside torch.optim.Muon with a fused AdamW: time, error, slope, memory.

    python -m benchmarks.optim.muon_step
    python -m benchmarks.optim.muon_step --case lora --rounds 30

The sets: the default model of ``spectrain train``; GPT-2 small; the experts of a block with 64; LoRA factors of rank
16. The optimizers take turns, so that all see the same machine; a ratio is the median over rounds of the ratio within a
round, by the time of the processor. Before the first round a tensor of 24 MiB is freed, as training does all the time:
the C library keeps memory for later tensors from then on, and no step waits for fresh pages. Ours iterates in the dtype
whose step was faster in one comparison here, as ``spectrain train`` decides by a measurement, and torch's in bfloat16.

Equal steps are not equal work well done. So beside the time stand the polar error of each msign on Gaussian matrices of
the shapes, and its slope: what it makes of a singular value of 1e-4 of the largest, over that value. What each loses in
training is another program's: ``benchmarks/train/muon_exactness.py``.
Memory is what a step needs for a moment above what is held between steps, in a process of its own, and over the size of
the largest matrix that msign sees.
"""

import gc
import multiprocessing
import multiprocessing.connection
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from benchmarks.matfun._peers import newton_schulz
from spectrain import matfun
from spectrain.nn import LanguageModel
from spectrain.optim import Matrix, Muon

Step = Callable[[], object]
Sign = Callable[[Tensor], Tensor]
Name = Literal["default", "gpt2", "experts", "lora"]
PEER = "torch.optim.Muon + fused AdamW"
OURS = {"Muon": 5, "Muon, steps=4": 4, "Muon, steps=3": 3}
DTYPES = ("float32", "bfloat16")


class Case(NamedTuple):
    """A set of parameters by shape: matrices, or stacks of them, for Muon, and what AdamW moves."""

    words: str
    matrices: list[tuple[int, ...]]
    rest: list[tuple[int, ...]]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Each shape of a matrix once."""
        return sorted({shape[-2:] for shape in self.matrices})


def case_of(name: Name, *, small: bool) -> Case:
    """One of the four sets; ``small`` ones have the same kinds of shapes."""
    width, blocks = (64, 1) if small else (768, 12)
    if name == "default":
        model = LanguageModel(vocabulary=64 if small else 4096, width=width if small else 256, depth=1 if small else 4,
                              heads=4, kv_heads=2, generator=0)  # fmt: skip
        rows = {row["name"]: row["algorithm"] == "muon" for row in Muon(model).rows}
        named = [(tuple(p.shape), rows[n]) for n, p in model.named_parameters()]
        return Case("default model", [s for s, muon in named if muon], [s for s, muon in named if not muon])
    square, wide = [(3 * width, width), (width, width)], [(4 * width, width), (width, 4 * width)]
    if name == "gpt2":
        rest = [(64 if small else 50257, width), (1024, width), *[(width,)] * 13 * blocks]
        return Case("GPT-2 small", [*square, *wide] * blocks, rest)
    if name == "experts":
        count, side, hidden = (4, 48, 32) if small else (64, 256, 144)
        return Case(f"{count} experts", [(count, hidden, side), (count, hidden, side), (count, side, hidden)] * 2, [])
    pairs = [[(16, in_), (out, 16)] for out, in_ in (*square, *wide)]
    return Case("LoRA, rank 16", [shape for pair in pairs for shape in pair] * blocks, [])


def parameters(shapes: list[tuple[int, ...]], *, flat: bool = False) -> list[nn.Parameter]:
    """Weights with gradients; ``flat``: stacks taken apart."""
    generator = torch.Generator().manual_seed(0)
    each = [s for shape in shapes for s in ([shape[1:]] * shape[0] if flat and len(shape) == 3 else [shape])]
    found = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in each]
    for p in found:
        p.grad = torch.randn(p.shape, generator=generator)
    return found


def ours(case: Case, steps: int, dtype: str) -> Step:
    """Our Muon, which moves the rest too; experts are stacked, as a layer has them."""
    groups: list[dict[str, object]] = []
    for stacked in (False, True):
        mine = [shape for shape in case.matrices if (len(shape) == 3) == stacked]
        if mine:
            groups.append({"params": parameters(mine), "matrix": Matrix(batch=int(stacked))})
    if case.rest:
        groups.append({"params": parameters(case.rest), "algorithm": "adamw"})
    return Muon(groups, steps=steps, compute_dtype=dtype).step


def peer(case: Case) -> Step:
    """torch's Muon, which takes each expert by itself, and its fused AdamW."""
    muon = torch.optim.Muon(parameters(case.matrices, flat=True), adjust_lr_fn="match_rms_adamw")
    if not case.rest:
        return muon.step
    rest = torch.optim.AdamW(parameters(case.rest), fused=True)
    return lambda: (muon.step(), rest.step())


def optimizer(case: Case, name: str, dtype: str) -> Step:
    """The step of a row."""
    return peer(case) if name == PEER else ours(case, OURS[name], dtype)


def faster_dtype(case: Case) -> str:
    """The working dtype with which a step of ours is faster here."""
    steps = {dtype: ours(case, 5, dtype) for dtype in DTYPES}
    times = alternate(steps, rounds=2, clock=time.process_time)
    return min(DTYPES, key=times.median)


def high_water() -> float:
    """Mebibytes of the largest resident size since the mark was last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def growth(case: Case, name: str, dtype: str, pipe: multiprocessing.connection.Connection) -> None:
    """Send the mebibytes by which a step exceeds what is held between steps."""
    torch.set_num_threads(1)
    step = optimizer(case, name, dtype)
    step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    step()
    pipe.send(high_water() - before)


def memory(case: Case, name: str, dtype: str) -> float | None:
    """``growth`` in a fresh process; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=growth, args=(case, name, dtype, theirs))
    process.start()
    found: float = mine.recv()
    process.join()
    return found


def sign_of(name: str, dtype: str) -> Sign:
    """msign as the optimizer of a row computes it."""
    if name == PEER:
        return lambda X: newton_schulz(X.clone())
    return lambda X: matfun.msign([X], steps=OURS[name], dtype=getattr(torch, dtype), out_dtype=X.dtype)[0]


def gaussian(shape: tuple[int, ...]) -> Tensor:
    """The same matrix for all rows."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def polar_error(matrices: Sequence[Tensor], sign: Sign) -> float:
    """Mean relative polar error."""
    errors = []
    for X in matrices:
        U, _, Vh = torch.linalg.svd(X.double(), full_matrices=False)
        errors.append(float((sign(X) - U @ Vh).norm() / min(X.shape) ** 0.5))
    return statistics.mean(errors)


def slope(X: Tensor, sign: Sign) -> float:
    """What becomes of the smallest singular value where it is 1e-4 of the largest, over it."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S[-1] = 1e-4 * S[0]
    Y = sign((U * S) @ Vh)
    return float(U[:, -1].double() @ Y.double() @ Vh[-1].double()) * 1e4


def look(name: Name, *, rounds: int, with_memory: bool, judged: bool, small: bool) -> list[dict[str, object]]:
    """The rows of one set."""
    case = case_of(name, small=small)
    torch.empty(3 * 2**21).fill_(0)  # 24 MiB, freed at once; from 32 MiB on glibc learns nothing from it
    dtype = faster_dtype(case)
    steps = {row: optimizer(case, row, dtype) for row in (*OURS, PEER)}
    times = alternate(steps, rounds=rounds, clock=time.process_time)
    del steps
    squarest = gaussian(min(case.shapes, key=lambda s: max(s) / min(s)))
    largest = max(shape[-2] * shape[-1] for shape in case.matrices) / 2**18  # of float32, in MiB
    rows = []
    for row in times:
        low, middle, high = times.quartiles(row, PEER)
        extra = memory(case, row, dtype) if with_memory else None
        sign = sign_of(row, dtype)
        rows.append(
            {
                "parameters": case.words,
                "optimizer": row,
                "iterates in": "bfloat16" if row == PEER else dtype,
                "ms": 1e3 * times.median(row),
                "ratio": middle,
                "from": low,
                "to": high,
                "polar error": polar_error([gaussian(shape) for shape in case.shapes], sign) if judged else None,
                "slope": slope(squarest, sign) if judged else None,
                "extra MiB": extra,
                "largest matrices": None if extra is None else extra / largest,
            }
        )
    return rows


def measure(
    *,
    case: Name | Literal["all"] = "all",
    rounds: int = 9,
    with_memory: bool = True,
    judged: bool = True,
    small: bool = False,
) -> Found:
    """All four sets, or one; of GPT-2 small a third of the rounds. ``judged``: with errors and slopes."""
    names: tuple[Name, ...] = ("default", "gpt2", "experts", "lora") if case == "all" else (case,)
    rows: list[dict[str, object]] = []
    ratios: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name in names:
        turns = max(1, rounds // 3) if name == "gpt2" else rounds
        found = look(name, rounds=turns, with_memory=with_memory, judged=judged, small=small)
        rows += found
        theirs = found[-1]
        for row in found[:-1]:
            what = f"{name}: {row['optimizer']}"
            ratios[f"{what}: time over {PEER}"] = row["ratio"]  # type: ignore[assignment]
            if judged:
                errors[f"{what}: polar error over {PEER}"] = row["polar error"] / theirs["polar error"]  # type: ignore[operator]
    means = {
        word: statistics.fmean(value for key, value in each.items() if ": Muon: " in key)
        for word, each in (("ratio", ratios), ("error", errors))
        if each
    }
    body = f"{_record.show(rows)}\n\nRatio: to {PEER}, the median of the rounds and its quartiles, processor time."
    return Found(rows=rows, body=body, figures=means | errors, ratios=ratios)


if __name__ == "__main__":
    main(
        "muon_step",
        "A step of Muon takes {ratio:.2f} of the time of torch.optim.Muon with fused AdamW, at {error:.2f} of its "
        "polar error, in the mean of the sets of parameters",
        measure,
        smoke={"rounds": 1, "with_memory": False, "small": True},
        check={"case": "default", "rounds": 3, "with_memory": False, "judged": False},
    )
