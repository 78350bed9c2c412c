"""msign against torch's Newton-Schulz loop and the exact SVD: polar error, products and time, side by side.

    python -m benchmarks.matfun.msign

Every time is a paired ratio: the peers run in turn within each round, and the median of the ratios to torch's loop is
what counts, because the machine may be busy. Errors are polar errors against the float64 SVD, over all matrices.
Products are those of the iteration, in units of short x short x long multiplications for square matrices.
"""

import functools
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from benchmarks.matfun._peers import Method, each, newton_schulz, peak, svd
from spectrain import approx, matfun
from spectrain.testing import exact_msign, relative_error, zoo

LOOP = "torch loop, 5 steps bf16"
PRODUCTS = {LOOP: 15, **{f"msign(steps={k})": 3 * k for k in (2, 3, 4, 5)}} | {
    "msign(schedule on [0.2, 1])": 9,
    "msign(schedule on [0.003, 1])": 15,
}


def transformer_shapes(layers: int, width: int, hidden: int) -> list[tuple[int, int]]:
    """Query, key, value, output, gate, up and down of ``layers`` blocks with half as many key heads."""
    block = [(width, width), (width // 2, width), (width // 2, width), (width, width)]
    return [*block, (hidden, width), (hidden, width), (width, hidden)] * layers


def matrices(shapes: list[tuple[int, int]], kind: str, seed: int) -> list[Tensor]:
    """Gaussian matrices, or matrices like momenta: a few strong directions over a weak floor."""
    g = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return [torch.randn(s, generator=g) for s in shapes]
    return [zoo(*s, generator=g)["momentum"].float() for s in shapes]


def methods(dtype: torch.dtype) -> dict[str, Method]:
    """What is compared, by name; all of them take and give a list of float32 matrices."""
    table: dict[str, Method] = {LOOP: each(newton_schulz)}
    for steps in (2, 3, 4, 5):
        table[f"msign(steps={steps})"] = lambda Xs, k=steps: matfun.msign(Xs, steps=k, dtype=dtype)
    for lower in (0.2, 3e-3):
        schedule = approx.sign_schedule(lower, steps=3 if lower == 0.2 else 5, margin=1.03)
        table[f"msign(schedule on [{lower:g}, 1])"] = lambda Xs, s=schedule: matfun.msign(Xs, schedule=s, dtype=dtype)
    table["msign(tol=5e-2)"] = lambda Xs: matfun.msign(Xs, tol=5e-2)
    table["msign()"] = matfun.msign
    table["SVD float32"] = each(svd)
    return table


def compare(Xs: list[Tensor], dtype: torch.dtype, rounds: int) -> list[dict[str, float | int | str]]:
    """Return one row for each method: error, products, milliseconds and the ratio of time to torch's loop."""
    truth, table = [exact_msign(X) for X in Xs], methods(dtype)
    errors = {
        name: [float(relative_error(Y, T)) for Y, T in zip(run(Xs), truth, strict=True)] for name, run in table.items()
    }
    calls = {name: functools.partial(run, Xs) for name, run in table.items()}
    times = alternate(calls, rounds=rounds, warm=0, clock=time.process_time)
    return [
        {
            "method": name,
            "products": PRODUCTS.get(name, "-"),
            "polar error, mean": statistics.mean(errors[name]),
            "polar error, max": max(errors[name]),
            "best ms": 1e3 * min(times[name]),
            "time / torch loop": times.ratio(name, LOOP),
        }
        for name in table
    ]


SETS = {
    "a small transformer": tuple(transformer_shapes(4, 256, 704)),
    "one 512 x 512": ((512, 512),),
    "one 512 x 2048": ((512, 2048),),
}


def measure(
    *, sets: Mapping[str, Sequence[tuple[int, int]]] = SETS, rounds: int = 9, seed: int = 0, large: int = 512
) -> Found:
    """Every method on every set of shapes; ``large`` is the side of the product that the peak is measured by."""
    rates = {str(d)[6:]: peak(d, large) for d in (torch.float32, torch.bfloat16, torch.float64)}
    body, rows = ["Peak of a product: " + ", ".join(f"{d} {rate:.0f} GFLOP/s" for d, rate in rates.items()) + "."], []
    for kind in ("gaussian", "momentum"):
        for name, shapes in sets.items():
            case = f"{name}, {kind}, bfloat16 products"
            found = compare(matrices(list(shapes), kind, seed), torch.bfloat16, rounds)
            body.append(f"## {case}\n\n{_record.show(found)}")
            rows += [{"case": case, **row} for row in found]
    ratios = {
        f"{r['case']}, {r['method']}: time / torch loop": r["time / torch loop"] for r in rows if r["method"] != LOOP
    }
    steps = [row for row in rows if row["method"] == "msign(steps=5)"]
    loop = [row for row in rows if row["method"] == LOOP]
    figures = {
        "error": statistics.median(
            a["polar error, mean"] / b["polar error, mean"] for a, b in zip(steps, loop, strict=True)
        ),
        "time": statistics.median(row["time / torch loop"] for row in steps),
    }
    return Found(rows=rows, body="\n\n".join(body), figures=figures, ratios=ratios, data={"peak GFLOP/s": rates})


if __name__ == "__main__":
    main(
        "msign",
        "msign(steps=5) has {error:.2f} of the polar error of torch's loop in {time:.2f} of its time, in the median of "
        "the cases",
        measure,
        smoke={"sets": {"two": ((16, 16), (8, 24))}, "rounds": 1, "large": 32},
        check={"sets": {"one 512 x 512": SETS["one 512 x 512"]}, "rounds": 3},
    )
