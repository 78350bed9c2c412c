"""The contract of polar on many matrices: is the error that it reports a bound, and how sharp a one?

    python -m benchmarks.matfun.matfun_contract    # 10,000 matrices for each dtype

Measured against ``testing.precise_msign``, which has more digits than float64. The yardstick for sharpness is
max(measured error, u * condition), u the unit roundoff of the dtype and the condition that of the singular values that
count: no float64 computation that looks at X once can know its own error better than that.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain import matfun
from spectrain.nn import LanguageModel
from spectrain.optim import Muon
from spectrain.testing import precise_msign, with_singular_values, zoo

DTYPES = ("bfloat16", "float16", "float32", "float64")
SHAPES = ((1, 1), (1, 7), (9, 2), (5, 9), (16, 16), (12, 40), (33, 20), (48, 48), (30, 47), (6, 64))


def spectra(k: int, g: torch.Generator) -> dict[str, Tensor]:
    """Singular values of one matrix of each kind, the parameters random."""
    decades, power = 12 * _uniform(g), 0.25 + 3 * _uniform(g)
    index = torch.arange(1, k + 1, dtype=torch.float64)
    jitter = 1 + 1e-7 * torch.rand(k, generator=g, dtype=torch.float64)
    few = torch.rand(max(1, int(k * _uniform(g))), generator=g, dtype=torch.float64)
    return {
        "random decades": 10 ** (-decades * torch.rand(k, generator=g, dtype=torch.float64)),
        "even decades": torch.logspace(0, -decades, k, dtype=torch.float64),
        "power law": index**-power,
        "clustered": jitter * torch.where(index <= (k + 1) // 2, 1.0, 10 ** (-decades / 2)),
        "one small": torch.where(index < k, 1.0, 10**-decades),
        "one large": torch.where(index > 1, 10 ** (-decades / 2), 1.0),
        "low rank": 10 ** (-decades / 4 * few),
    }


def structures(m: int, n: int, g: torch.Generator) -> dict[str, Tensor]:
    """Matrices of one shape whose rounding errors are not those of random ones."""
    normal = torch.randn(m, n, generator=g, dtype=torch.float64)
    rows = torch.logspace(0, -12 * _uniform(g), m, dtype=torch.float64)[:, None]
    columns = torch.logspace(0, -12 * _uniform(g), n, dtype=torch.float64)
    noise = 10 ** (-10 * _uniform(g))
    return {
        "Gaussian": normal,
        "graded rows": rows * normal,
        "graded both": rows * normal * columns,
        "constant and noise": 1 + noise * normal,
        "positive": normal.abs(),
        "integers": (4 * normal).round(),
        "signs": normal.sign(),
        "one-hot rows": torch.eye(n, dtype=torch.float64)[torch.randint(n, (m,), generator=g)],
        "Hilbert": 1 / (1 + torch.arange(m).double()[:, None] + torch.arange(n)),
        "sparse": normal * (torch.rand(m, n, generator=g) < 0.1),
        "scaled": normal * 2.0 ** int(torch.randint(-100, 100, (), generator=g)),
    }


def training_matrices(steps: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Gradients and momenta of a small language model that learns the source of this file."""
    model = LanguageModel(vocabulary=256, width=32, depth=2, heads=2, hidden=64, generator=seed)
    optimizer = Muon(model, lr=0.01)
    text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long().clamp(max=255)
    g = torch.Generator().manual_seed(seed)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "blocks" in name]
    for _ in range(steps):
        starts = torch.randint(len(text) - 33, (8,), generator=g)
        tokens = torch.stack([text[i : i + 33] for i in starts])
        logits = model(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        yield from (("gradient", p.grad.double().clone()) for p in matrices if p.grad is not None)
        optimizer.step()
        buffers = (optimizer.state[p].get("momentum_buffer") for p in matrices)
        yield from (("momentum", b.double().clone()) for b in buffers if b is not None)
        optimizer.zero_grad()


def suite(rounds: int, seed: int = 0, shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[tuple[str, Tensor]]:
    """Named float64 matrices: the zoo, given spectra, structure, and the trainer's; about 195 for each round."""
    g = torch.Generator().manual_seed(seed)
    for i in range(rounds):
        for m, n in shapes:
            if i % 4 == 0:
                yield from zoo(m, n, generator=g).items()
            yield from ((kind, with_singular_values(s, m, n, generator=g)) for kind, s in spectra(min(m, n), g).items())
            yield from structures(m, n, g).items()
    yield from training_matrices(2 * rounds, seed)


def judge(matrices: list[tuple[str, Tensor]], dtype: torch.dtype) -> dict[str, list]:
    """Return for every matrix of nonzero rank its kind, the reported and the measured error, and the condition."""
    shapes: dict[torch.Size, list[tuple[str, Tensor]]] = {}
    for kind, X in matrices:
        rounded = X.to(dtype)
        if rounded.isfinite().all():
            shapes.setdefault(X.shape, []).append((kind, rounded))
    found: dict[str, list] = {"kind": [], "reported": [], "measured": [], "condition": []}
    for group in shapes.values():
        X = torch.stack([X for _, X in group])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            U, _, error, rank = matfun.polar(X)
        gap = U.double().numpy() - precise_msign(_unit(X), rank.long().numpy())
        size = rank.clamp_min(1).sqrt()
        S = torch.linalg.svdvals(_unit(X))
        last = S.gather(1, (rank.long() - 1).clamp_min(0)[:, None])[:, 0]
        some = (rank > 0).tolist()
        columns = {
            "kind": [kind for kind, _ in group],
            "reported": error.tolist(),
            "measured": (torch.from_numpy(np.sqrt((gap * gap).sum((-1, -2))).astype(float)) / size).tolist(),
            "condition": (S[:, 0] / last).tolist(),
        }
        for name, values in columns.items():
            found[name] += [value for value, kept in zip(values, some, strict=True) if kept]
    return found


def _unit(X: Tensor) -> Tensor:
    """X in float64 with its largest entry near 1, by a power of two: squares neither over- nor underflow."""
    largest = X.double().abs().amax((-2, -1), keepdim=True)
    return torch.ldexp(X.double(), -torch.frexp(largest)[1])


def ratios(found: dict[str, list], dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return measured / reported, at most 1 where the bound holds, and reported / max(measured, u condition)."""
    reported, measured, condition = (np.array(found[name]) for name in ("reported", "measured", "condition"))
    yardstick = np.maximum(measured, torch.finfo(dtype).eps / 2 * condition)
    return measured / np.maximum(reported, 1e-300), reported / yardstick


def _uniform(g: torch.Generator) -> float:
    return float(torch.rand((), generator=g))


def measure(*, rounds: int = 48, shapes: tuple[tuple[int, int], ...] = SHAPES) -> Found:
    """About 195 matrices a round, of these shapes."""
    matrices = list(suite(rounds, shapes=shapes))
    rows = []
    for name in DTYPES:
        dtype = getattr(torch, name)
        found = judge(matrices, dtype)
        held, sharp = ratios(found, dtype)
        rows.append(
            {
                "dtype": name,
                "matrices": len(held),
                "bounds broken": int((held > 1).sum()),
                "largest measured / reported": float(held.max()),
                "within 10 yardsticks": float((sharp <= 10).mean()),
                "median reported / yardstick": float(np.median(sharp)),
                "largest": float(sharp.max()),
                "kind of the largest": found["kind"][int(sharp.argmax())],
                "proven": float(np.mean(np.array(found["reported"]) <= matfun.plan((9, 9), dtype).tol)),
            }
        )
    figures = {"broken": sum(row["bounds broken"] for row in rows), "all": sum(row["matrices"] for row in rows)}
    figures |= {"sharp": min(row["within 10 yardsticks"] for row in rows)}
    body = "yardstick: max(measured error, u condition)\n\n" + _record.show(rows, 4)
    return Found(rows=rows, body=body, figures=figures)


if __name__ == "__main__":
    main(
        "matfun_contract",
        "The error that polar reports is a bound: {broken} of {all} are not; and a sharp one: {sharp:.1%} are within "
        "ten yardsticks",
        measure,
        smoke={"rounds": 1, "shapes": ((1, 7), (5, 9))},
        threads=None,
    )
