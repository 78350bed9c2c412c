"""msign against what others ship, at equal time or equal error, side by side: errors, times, share of the matmul peak.

    python -m benchmarks.matfun.msign_targets [--checkpoint RUN/checkpoints/...] [--only momenta] [--part NAME]

Peers that are not installed are left out and named: gram-newton-schulz, pytorch_optimizer, optimuon, heavyball, timm
(`pip install --no-deps` is enough). Each ``--part`` is a record of its own. Within each repetition all run in turn; the
measure is the median of the ratios to the first one. Errors are polar errors against the float64 SVD, root mean square
over the matrices. The share of the peak is that of the multiplications which a method makes, of the rate of one large
product in its dtype measured in this run: the products of the iteration in its form (plain or Gram), and for
decompositions the count of Golub and Van Loan, 14 l k^2 + 8 k^3 for the SVD and 9 k^3 for eigenvectors.
"""

import functools
import importlib.util
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import Times, seconds
from benchmarks.matfun._peers import Method, each, newton_schulz, peak, svd
from spectrain import matfun
from spectrain.matfun._proven.iterated import schedule_for
from spectrain.matfun.internal import coefficients, gram_cuts, gram_products, plain_products, schedule_for_steps
from spectrain.testing import exact_msign, relative_error, zoo

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # what a peer compiles at its first call takes minutes
SLOW = 10.0  # seconds of a first run after which there is no second


def peers(missing: list[str], without: Sequence[str]) -> tuple[dict[str, Method], dict[str, Method]]:
    """Five-step recipes in bfloat16, and what claims 1e-3 in float32."""
    fast: dict[str, Method] = {"torch 2.13, 5 steps": each(newton_schulz)}
    fine: dict[str, Method] = {"torch SVD float32": each(svd)}
    with_scipy = importlib.import_module("scipy.linalg")
    fine["scipy.linalg.polar"] = each(lambda X: torch.from_numpy(with_scipy.polar(X.numpy())[0]))
    for name, add in (
        ("gram_newton_schulz", _gram_newton_schulz), ("optimuon", _optimuon), ("heavyball", _heavyball),
        ("pytorch_optimizer", _pytorch_optimizer), ("timm", _timm),
    ):  # fmt: skip
        if name in without:
            missing.append(f"{name}: by request")
            continue
        try:
            more_fast, more_fine = add()
        except Exception as problem:  # a peer that cannot be imported here is a line of the record
            missing.append(f"{name}: {type(problem).__name__}: {str(problem)[:80]}")
            continue
        fast |= more_fast
        fine |= more_fine
    return fast, fine


def _gram_newton_schulz() -> tuple[dict[str, Method], dict[str, Method]]:
    from gram_newton_schulz import GramNewtonSchulz

    A = torch.randn(256, 256)
    if seconds(lambda: A.half() @ A.half()) > 20 * seconds(lambda: A @ A):
        raise RuntimeError("iterates in float16 only, whose products this processor emulates")
    run = GramNewtonSchulz(ns_use_kernels=False, compile_kwargs=None)
    return {"gram-newton-schulz": each(run)}, {}


def _optimuon() -> tuple[dict[str, Method], dict[str, Method]]:
    from optimuon import gram_newton_schulz, newton_schulz

    bf16 = torch.bfloat16
    return {
        "optimuon": each(lambda X: newton_schulz(X.to(bf16))),
        "optimuon, Gram": each(lambda X: gram_newton_schulz(X.to(bf16))),
    }, {}


def _heavyball() -> tuple[dict[str, Method], dict[str, Method]]:
    import heavyball.utils as hu

    hu.compile_mode = None  # else its first call compiles for minutes
    return {
        "heavyball": each(hu.zeropower_via_newtonschulz5),
        "heavyball msign 10": each(lambda X: hu.msign(X, steps=10)),
    }, {}


def _pytorch_optimizer() -> tuple[dict[str, Method], dict[str, Method]]:
    from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_gram_newton_schulz as gns
    from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5 as ns

    pe8: Any = functools.partial(ns, num_steps=8, weights="polar_express", dtype=torch.float32)
    return {"pytorch_optimizer, Gram": each(lambda X: gns(X, weights="polar_express"))}, {
        "pytorch_optimizer PE8 float32": each(pe8)
    }


def _timm() -> tuple[dict[str, Method], dict[str, Method]]:
    for name in ("timm", "timm.optim"):  # without their doors, which want torchvision
        found = importlib.util.find_spec(name)
        if found is None or found.submodule_search_locations is None:
            raise ModuleNotFoundError(name)
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = list(found.submodule_search_locations)
    muon = importlib.import_module("timm.optim.muon")
    express = muon._COEFFICIENTS["polar_express"]
    return {"timm, Polar Express": each(lambda X: muon.zeropower_via_newtonschulz(X, 5, express))}, {}


def ours(steps: tuple[int, ...]) -> dict[str, Method]:
    """Quintics for the measured spectrum, and for the default one, in bfloat16."""
    table: dict[str, Method] = {}
    for k in steps:
        for lower in ("measured", None):
            name = f"msign(steps={k}{', measured' if lower else ''})"
            table[name] = functools.partial(_ours, steps=k, lower=lower)
    return table


def _ours(Xs: list[Tensor], *, steps: int, lower: str | None) -> list[Tensor]:
    return matfun.msign(Xs, steps=steps, lower=lower, dtype=torch.bfloat16)


def compare(Xs: list[Tensor], table: dict[str, Method], rounds: int) -> list[dict[str, Any]]:
    """One row a method: error, best time, median paired ratio of time to the first, ratio of errors."""
    truth = [exact_msign(X) for X in Xs]
    errors, failed, slow = {}, {}, {}
    for name, run in table.items():
        start = time.perf_counter()
        try:
            squares = [float(relative_error(Y.float(), T)) ** 2 for Y, T in zip(run(Xs), truth, strict=True)]
            errors[name] = statistics.mean(squares) ** 0.5
        except Exception as problem:  # a peer's failure is a result
            failed[name] = f"{type(problem).__name__}: {str(problem)[:60]}"
        if (spent := time.perf_counter() - start) > SLOW:
            slow[name] = spent
    times = Times({name: [] for name in errors})
    for _ in range(rounds):
        for name in errors:  # of what is slow one run, the first, has to do
            times[name].append(slow[name] if name in slow else seconds(functools.partial(table[name], Xs)))
    first = next(iter(errors))
    rows = [
        {
            "method": name,
            "polar error": errors[name],
            "error of the first / error": errors[first] / max(errors[name], 1e-300),
            "best ms": 1e3 * min(times[name]),
            "time / first": times.ratio(name, first),
        }
        for name in errors
    ]
    return rows + [{"method": name, "failed": why} for name, why in failed.items()]


def with_share(rows: list[dict[str, Any]], Xs: list[Tensor], rate: float) -> list[dict[str, Any]]:
    """Add the share of the peak."""
    for row in rows:
        if "best ms" in row:
            flops = sum(2 * min(X.shape) ** 3 * _products(row["method"], X) for X in Xs)
            row["share of the peak"] = flops / (1e6 * row["best ms"]) / rate
    return rows


def _products(method: str, X: Tensor) -> float:
    """Multiplications that a method makes of X, in those of a product of k x k."""
    short, aspect = min(X.shape), max(X.shape) / min(X.shape)
    if method.startswith("msign(steps="):
        schedule = schedule_for_steps(int(method[len("msign(steps=")]), torch.bfloat16)
        steps, cuts = coefficients(schedule), gram_cuts(schedule, torch.bfloat16, (short, max(X.shape)))
        return plain_products(steps, aspect) if cuts is None else gram_products(steps, cuts, aspect)
    if method.startswith("msign(tol="):
        if matfun.plan(tuple(X.shape), tol=1e-3).stages[0] != "iterate float32":
            return 4.5 + 4 * aspect + 3
        schedule = schedule_for(max(0.01, (aspect**0.5 - 1) / (aspect**0.5 + 1) / 1.15), 1e-3)
        steps, cuts = coefficients(schedule), gram_cuts(schedule, torch.float32, (short, max(X.shape)))
        return plain_products(steps, aspect) if cuts is None else gram_products(steps, cuts, aspect)
    if "SVD" in method or "polar" in method:
        return 7 * aspect + 4
    count = {"heavyball msign 10": 10, "pytorch_optimizer PE8 float32": 8}.get(method, 5)
    if "ram" in method and aspect > 1:  # Gram forms of five steps with one restart
        return 4 * aspect + 5 + 3 * (5 - 2)
    return count * (2 * aspect + 1)


def momenta(path: Path, most: int) -> list[Tensor]:
    """The matrices with a short side of 128 or more among the momentum buffers of a trainer's checkpoint."""
    found: list[Tensor] = []

    def walk(item: Any, name: str) -> None:
        if isinstance(item, Tensor):
            if "momentum" in name and item.ndim == 2 and min(item.shape) >= 128 and item.is_floating_point():
                found.append(item.float())
        elif isinstance(item, dict):
            for key, value in item.items():
                walk(value, f"{name}/{key}")
        elif isinstance(item, list | tuple):
            for value in item:
                walk(value, name)

    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix in (".pt", ".pth", ".bin"):
            walk(torch.load(file, map_location="cpu", weights_only=True), "")
        elif file.suffix == ".safetensors":
            from safetensors.torch import load_file

            walk(load_file(file), "")
    return found[:most]


def cases(
    g: torch.Generator, *, side: int, width: int, layers: int, fast: dict[str, Method], fine: dict[str, Method]
) -> dict[str, tuple[Callable[[], list[Tensor]], dict[str, Method]]]:
    """For each case how its matrices are made, and what is compared on them."""
    block = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    normal = functools.partial(torch.randn, generator=g)
    tolerance: dict[str, Method] = {"msign(tol=1e-3)": lambda Xs: matfun.msign(Xs, tol=1e-3)}
    half = side // 2
    return {
        f"square {side}, Gaussian, bfloat16": (lambda: [normal(side, side)], fast | ours((3, 4, 5))),
        f"{side} x {4 * side}, Gaussian, bfloat16": (lambda: [normal(side, 4 * side)], fast | ours((2, 3))),
        f"{half} x {2 * side}, Gaussian, float32": (lambda: [normal(half, 2 * side)], fine | tolerance),
        f"{side} x {3 * half}, Gaussian, float32": (lambda: [normal(side, 3 * half)], fine | tolerance),
        f"square {side}, Gaussian, float32": (lambda: [normal(side, side)], fine | tolerance),
        "GPT-2 small, Gaussian, bfloat16": (
            lambda: [normal(*s) for s in block * layers],
            {k: fast[k] for k in list(fast)[:1]} | ours((3, 4)),
        ),
        f"{half} x {half} like momenta, bfloat16": (
            lambda: [zoo(half, half, generator=g)["momentum"].float()], fast | ours((5, 6)),
        ),
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> str:
    """Rows as a table, failures in words."""
    header = list(rows[0])
    cells = [[f"{v:.3g}" if isinstance(v, float) else v for v in (r.get(h, "") for h in header)] for r in rows]
    for row, line in zip(rows, cells, strict=True):
        if "failed" in row:
            line[1] = "failed: " + row["failed"]
    return _record.table(header, cells)


def measure(
    *,
    checkpoint: Path | None = None,
    rounds: int = 7,
    side: int = 1024,
    width: int = 768,
    layers: int = 12,
    without: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    part: str = "",
) -> Found:
    """Cases whose name contains one of ``only``, for a record of that ``part``; ``layers`` are GPT-2 small's of
    ``width``; ``checkpoint`` is the trainer's, for its momenta; ``without`` are peers to leave out.
    """
    missing: list[str] = []
    fast, fine = peers(missing, without)
    made = cases(torch.Generator().manual_seed(0), side=side, width=width, layers=layers, fast=fast, fine=fine)
    if checkpoint:
        made["momenta of the trainer, bfloat16"] = (lambda: momenta(checkpoint, 24), fast | ours((4, 5, 6)))
    chosen = {name: case for name, case in made.items() if not only or any(word in name for word in only)}
    rates = {d: peak(d, side) for d in (torch.bfloat16, torch.float32)}
    body, found = [f"Peak of a product: {', '.join(f'{str(d)[6:]} {r:.0f} GFLOP/s' for d, r in rates.items())}."], []
    if missing:
        body.append("Left out, not importable here: " + "; ".join(missing) + ".")
    for name, (make, table) in chosen.items():
        Xs = make()
        rows = compare(Xs, table, min(rounds, 3) if "GPT" in name else rounds)
        rows = with_share(rows, Xs, rates[torch.float32 if "float32" in name else torch.bfloat16])
        found += [{"case": name, **row} for row in rows]
        body.append(f"## {name} ({len(Xs)} matrices)\n\n{show(rows)}")
        print(body[-1], flush=True)
    timed = [row for row in found if "time / first" in row]
    ratios = {f"{row['case']}, {row['method']}: time / first": row["time / first"] for row in timed}
    best = max(row["error of the first / error"] for row in timed if row["time / first"] <= 1)
    figures = {"better": best, "cases": len(chosen), **ratios}
    return Found(rows=found, body="\n\n".join(body), figures=figures, data={"missing": missing}, part=part)


if __name__ == "__main__":
    main(
        "msign_targets",
        "msign beside what others ship, {cases} cases: an error up to {better:.1f} times smaller than the first peer's "
        "in no more time",
        measure,
        smoke={
            "side": 32,
            "width": 16,
            "layers": 1,
            "rounds": 1,
            "only": ("32 x 128, Gaussian, bfloat16", "square 32, Gaussian, float32"),
        },
    )
