"""``spectrain check``: does what was tuned on a narrow model hold on a wide one?"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrain import report
from spectrain.cli._parse import parse
from spectrain.train.internal import CheckConfig, TransferConfig, check_config, mean_losses, named_folder
from spectrain.train.studies import lr_transfer

CHECKS = ("coordinates", "spectrum", "lr-transfer")
HELP = """usage: spectrain check coordinates | spectrum | lr-transfer [OPTIONS]

  coordinates  real steps at several widths: outputs of every module before and after, and by how much they change
  spectrum     the same steps: spectral norms of weights and updates over sqrt(out / in)
  lr-transfer  the best learning rate at every width

Each writes check.json and report.html, and ends with exit code 1 where the width shows. Options: spectrain check NAME
--help."""
DESCRIPTIONS = {
    "coordinates": "Take steps at several widths; outputs must not grow or shrink with the width.",
    "spectrum": "Take steps at several widths; weights and updates must keep the spectral norm of sqrt(out / in).",
    "lr-transfer": "Train at several widths and learning rates; the best rate must not move by more than 2.",
}


def main(argv: list[str]) -> int:
    """Check, print the table, write the report; 1 where it failed."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    what, rest = argv[0], argv[1:]
    if what not in CHECKS:
        raise ValueError(f"check: one of {', '.join(CHECKS)} is needed first, got {what!r}.")
    if what == "lr-transfer":
        return _transfer(rest)
    with _asked(CheckConfig, what, rest) as config:
        folder = Path(config.out_dir)
        found = check_config(config, "spectrum" if what == "spectrum" else "coordinates", folder=folder)
        print(table(found))
        print(verdict(found))
        print(f"report: {report.write([folder], out=folder / 'report.html')}")
        return 0 if found["ok"] else 1


def _transfer(rest: list[str]) -> int:
    with _asked(TransferConfig, "lr-transfer", rest) as config:
        folder = Path(config.out_dir)
        try:
            found = lr_transfer(config, folder=folder)
        except KeyboardInterrupt:
            print(f"stopped. To go on, give the same command with --out-dir {folder}")
            raise
        print(transfer_table(found))
        print(f"report: {report.write([folder], out=folder / 'report.html')}")
        return 0 if found["ok"] else 1


@contextmanager
def _asked(kind: type[Any], what: str, rest: list[str]) -> Iterator[Any]:
    """The configuration that the flags ask for, in a folder of its own unless they name one; it is held."""
    asked = parse(kind, rest, prog=f"spectrain check {what}", description=DESCRIPTIONS[what])
    with named_folder(asked.out_dir, f"check-{what}") as folder:
        yield dataclasses.replace(asked, out_dir=str(folder))


def table(found: dict[str, Any]) -> str:
    """For each kind the number of sizes and their largest exponents, then every size that fails."""
    lines = [f"{'kind':12}{'sizes':>6}{'least exponent':>16}{'largest':>10}{'largest spread':>16}{'fail':>6}"]
    rows = found["judged"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        same = [row for row in rows if row["kind"] == kind]
        powers = [row["exponent"] for row in same]
        spread, bad = max(row["spread"] for row in same), sum(not row["ok"] for row in same)
        lines.append(f"{kind:12}{len(same):6}{min(powers):16.3f}{max(powers):10.3f}{spread:16.3f}{bad:6}")
    for row in rows:
        if not row["ok"]:
            sizes = "  ".join(f"{width}: {value:.3g}" for width, value in row["values"].items())
            lines.append(f"{row['kind']:12}{row['name']:44}width^{row['exponent']:.2f}   {sizes}")
    return "\n".join(lines)


def verdict(found: dict[str, Any]) -> str:
    """The result in a sentence, with what to mend first.

    >>> verdict({"ok": False, "suspect": {"kind": "update", "name": "head.weight", "exponent": 0.97,
    ...     "multiplier": "learning rate x (64 / width)"}})
    'FAIL: the update of head.weight goes as width^0.97. Begin there: learning rate x (64 / width).'
    """
    first = found["suspect"]
    if first is None:
        return "OK: nothing that is looked at grows or shrinks with the width."
    thing = {"start": "output at the start", "activation": "output"}.get(first["kind"], first["kind"])
    cure = f" Begin there: {first['multiplier']}." if first["multiplier"] else ""
    return f"FAIL: the {thing} of {first['name']} goes as width^{first['exponent']:.2f}.{cure}"


def transfer_table(found: dict[str, Any]) -> str:
    """Losses by learning rate and width, the best of each width marked, and by how much it moves."""
    widths = list(found["best"])
    losses = {width: mean_losses([row for row in found["rows"] if row["width"] == width]) for width in widths}
    lines = ["learning rate" + "".join(f"{f'width {width}':>14}" for width in widths)]
    for rate in sorted({rate for tried in losses.values() for rate in tried}):
        cells = []
        for width in widths:
            mean = f"{losses[width][rate]:.4f}" if rate in losses[width] else ""
            cells.append(f"{mean + (' *' if rate == found['best'][width] else '  '):>14}")
        lines.append(f"{rate:13.3e}" + "".join(cells))
    word = "OK" if found["ok"] else "FAIL"
    lines.append(
        f"{word}: the best learning rate moves by a factor of {found['moved']:.3g} on the grid, and by "
        f"{found['drift']:.3g} where parabolas through it are lowest (2 is allowed)."
    )
    return "\n".join(lines)
