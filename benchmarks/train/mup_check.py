"""How far do activations, updates and decay move with the width, under muP and beside it in the standard way?

    python -m benchmarks.train.mup_check --data tinyshakespeare.txt

Widths 64, 128 and 256, five seeds, ten steps: the spread, largest over smallest mean, of every hidden module. At the
start also forty seeds, together and in groups of five: how much of the spread of five is the scatter of the draws.
"""

from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY
from spectrain.train import check
from spectrain.train._studies.check import Family, member_of
from spectrain.train._studies.verdict import judge
from spectrain.train.internal import CheckConfig

CASES = {
    "muP, AdamW": ("adamw", "match_rms_adamw", "mup", 1e-3),
    "muP, Muon spectral": ("muon", "spectral", "mup", 6.4e-3),
    "muP, Muon match_rms_adamw": ("muon", "match_rms_adamw", "mup", 2e-3),
    "standard, AdamW": ("adamw", "match_rms_adamw", "standard", 1e-3),
    "standard, Muon match_rms_adamw": ("muon", "match_rms_adamw", "standard", 2e-3),
}


def check_case(name: str, data: tuple[str, ...], *, widths: tuple[int, ...], seeds: int, steps: int) -> dict[str, Any]:
    """One case: the verdict and every size."""
    optimizer, scale, parametrisation, lr = CASES[name]
    config = CheckConfig(
        data=data, optimizer=optimizer, scale=scale, parametrisation=parametrisation, lr=lr, widths=widths,
        seeds=tuple(range(seeds)), steps=steps, threads=1,
    )  # fmt: skip
    family = Family(config)
    return check(
        lambda width, seed: member_of(family, width, seed), widths=config.widths, seeds=config.seeds, steps=config.steps
    )


def worst(judged: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The hidden module or parameter of a kind that moves most."""
    return max((row for row in judged if row["kind"] == kind and row["role"] != "output"), key=lambda r: r["spread"])


def worst_at_start(found: dict[str, Any], seeds: range) -> dict[str, Any]:
    """The hidden module that differs most between widths at the start, in the mean over some of the seeds."""
    return worst(judge([row for row in found["rows"] if row["seed"] in seeds], ("start",)), "start")


def measure(
    *,
    data: tuple[str, ...] = (),
    cases: tuple[str, ...] = tuple(CASES),
    widths: tuple[int, ...] = (64, 128, 256),
    seeds: int = 5,
    steps: int = 10,
    many: int = 40,
) -> Found:
    """``many`` seeds at the start, besides; the first case is the one that is looked at there."""
    found = {name: check_case(name, data, widths=widths, seeds=seeds, steps=steps) for name in cases}
    kinds = ("start", "activation", "change", "weight", "update", "decay")
    rows = []
    for name, case in found.items():
        most = {kind: worst(case["judged"], kind) for kind in kinds}
        of = {kind: {key: row[key] for key in ("name", "spread", "exponent")} for kind, row in most.items()}
        rows.append({"case": name, "passes": case["ok"], **of})
    cells = [
        [row["case"], "yes" if row["passes"] else "no"]
        + [f"{row[kind]['spread']:.3f} ({row[kind]['exponent']:+.2f})" for kind in kinds]
        for row in rows
    ]
    names = [[row["case"], *(row[kind]["name"] for kind in kinds)] for row in rows]
    started = check_case(cases[0], data, widths=widths, seeds=many, steps=1)
    groups = [worst_at_start(started, range(k, k + seeds))["spread"] for k in range(0, many, seeds)]
    whole, name = (worst_at_start(started, range(many))[key] for key in ("spread", "name"))
    body = (
        f"Largest over smallest mean over widths {widths}; {seeds} seeds; mean absolute outputs of hidden modules.\n\n"
        + _record.table(["case", "passes", *(f"{kind}: spread (power)" for kind in kinds)], cells)
        + "\n\nWorst hidden module or parameter of each kind:\n\n"
        + _record.table(["case", *kinds], names)
        + f"\n\nAt the start under muP the worst hidden module over {many} seeds is {name} with {whole:.3f}; over "
        f"groups of {seeds} seeds the worst has {', '.join(f'{g:.3f}' for g in sorted(groups))}: scatter of the draws."
    )
    figures = {"start": whole}
    figures |= {f"{row['case']}, {kind}": row[kind]["spread"] for row in rows for kind in ("start", "activation")}
    figures["spreads"] = ", ".join(f"{row['activation']['spread']:.3f} ({row['case']})" for row in rows)
    return Found(rows=rows, body=body, figures=figures, data={"groups": groups})


if __name__ == "__main__":
    main(
        "mup_check",
        "Spread over widths {widths} after {steps} steps: {spreads}; at the start under muP, over {many} seeds, "
        "{start:.3f}",
        measure,
        smoke={"data": TINY["data"], "cases": tuple(CASES)[:1], "widths": (64, 128), "seeds": 1, "steps": 1, "many": 2},
    )
