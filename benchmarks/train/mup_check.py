"""How far do activations, updates and decay move with the width, under muP and beside it in the standard way?

    python benchmarks/mup_check.py --data tinyshakespeare.txt

Widths 64, 128 and 256, five seeds, ten steps: the spread, largest over smallest mean, of every hidden module. At the
start also forty seeds, together and in groups of five: how much of the spread of five is the scatter of the draws.
"""

import argparse
from typing import Any

import _record

from spectrain.train._studies.check import Family, check, member_of
from spectrain.train._studies.check_config import CheckConfig
from spectrain.train._studies.verdict import judge

CASES = {
    "muP, AdamW": ("adamw", "match_rms_adamw", "mup", 1e-3),
    "muP, Muon spectral": ("muon", "spectral", "mup", 6.4e-3),
    "muP, Muon match_rms_adamw": ("muon", "match_rms_adamw", "mup", 2e-3),
    "standard, AdamW": ("adamw", "match_rms_adamw", "standard", 1e-3),
    "standard, Muon match_rms_adamw": ("muon", "match_rms_adamw", "standard", 2e-3),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs; writes no record")
    return parser.parse_args()


def measured(asked: argparse.Namespace, name: str, *, seeds: int = 5, steps: int = 10) -> dict[str, Any]:
    """One case: the verdict and every size."""
    optimizer, scale, parametrisation, lr = CASES[name]
    config = CheckConfig(
        data=tuple(asked.data),
        optimizer=optimizer,
        scale=scale,
        parametrisation=parametrisation,
        lr=lr,
        seeds=tuple(range(seeds)),
        steps=steps,
        threads=1,
    )
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


def main() -> None:
    asked = arguments()
    short = {"seeds": 1, "steps": 1} if asked.smoke else {}
    found = {name: measured(asked, name, **short) for name in CASES}
    kinds = ("start", "activation", "change", "weight", "update", "decay")
    head = ["case", "passes", *(f"{kind}: spread (power)" for kind in kinds)]
    rows = []
    for name, case in found.items():
        most = [worst(case["judged"], kind) for kind in kinds]
        cells = [f"{row['spread']:.3f} ({row['exponent']:+.2f})" for row in most]
        rows.append([name, "yes" if case["ok"] else "no", *cells])
    body = _record.table(head, rows)
    body += "\n\nWorst hidden module or parameter of each kind:\n\n"
    body += _record.table(
        ["case", *kinds], [[n, *(worst(c["judged"], k)["name"] for k in kinds)] for n, c in found.items()]
    )
    many = 10 if asked.smoke else 40
    started = measured(asked, "muP, AdamW", seeds=many, steps=1)
    groups = [worst_at_start(started, range(k, k + 5))["spread"] for k in range(0, many, 5)]
    whole, name = (worst_at_start(started, range(many))[key] for key in ("spread", "name"))
    body += (
        f"\n\nAt the start under muP the worst hidden module over {many} seeds is {name} with {whole:.3f}; over groups "
        f"of five seeds the worst has {', '.join(f'{group:.3f}' for group in sorted(groups))}: scatter of the draws."
    )
    print(body)
    if asked.smoke:
        return
    of = {name: [worst(found[name]["judged"], kind)["spread"] for kind in ("start", "activation")] for name in CASES}
    claim = "; ".join(f"{name}: {a:.3f} at the start, {b:.3f} after ten steps" for name, (a, b) in of.items())
    note = (
        "Largest over smallest mean over widths 64, 128, 256; five seeds; mean absolute outputs of hidden modules.\n\n"
    )
    claim += f"; muP over {many} seeds: {whole:.3f} at the start"
    data: dict[str, Any] = {name: {"ok": case["ok"], "judged": case["judged"]} for name, case in found.items()}
    data["start"] = {"groups": groups, "all": whole}
    _record.write("mup_check", claim=f"Spread over widths 64 to 256. {claim}", body=note + body, data=data)


if __name__ == "__main__":
    main()
