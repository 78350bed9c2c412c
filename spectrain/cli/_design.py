"""``spectrain design``: compute a schedule, bound its error, draw it, and print code to paste."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spectrain import approx
from spectrain.cli._designs import KINDS, curves, write
from spectrain.cli._designs import main as designs
from spectrain.cli._parse import parse
from spectrain.train.internal import claimed


@dataclass(frozen=True)
class Design:
    """Compute the composition of odd polynomials that is best for the matrix sign.

    One of --steps, --products and --tol says when to stop; none: five steps. Other designs: spectrain design minimax,
    root, step, clip and recipe, each with --help.
    """

    lower: float = 1e-3
    """Smallest singular value that must arrive near 1."""
    upper: float = 1.0
    """Largest singular value."""
    steps: int | None = None
    """So many polynomials."""
    products: float | None = None
    """The best mix of degrees within this many matrix products."""
    tol: float | None = None
    """As many steps as this error takes."""
    degree: tuple[int, ...] | Literal["auto"] = (5,)
    """Degree of every step, one for each step, or 'auto': the best mix."""
    cushion: float = 0.0
    """Design on [max(lower, cushion * upper), upper] and recentre: a published safety."""
    margin: float = 1.0
    """Evaluate every step but the last at x / margin: another published safety."""
    gram: bool = False
    """Count products for the iteration on the small Gram matrix."""
    symmetric: bool = False
    """Count symmetric products half."""
    aspect: float = 1.0
    """Long side over short side, for the count."""
    dtype: Literal["float64", "float32", "tfloat32", "float16", "bfloat16"] = "float64"
    """The arithmetic it has to survive."""
    code: tuple[Literal["torch", "jax", "numpy"], ...] = ("torch", "jax", "numpy")
    """Frameworks to print code for."""
    out: Path | None = None
    """Folder for schedule.json, schedule.html, schedule.svg and the code. Default: design/."""


def main(argv: list[str]) -> int:
    """Print the schedule, its bounds and code; write the plot. The first word may name another kind of design."""
    if argv and argv[0] in KINDS:
        return designs(argv[0], argv[1:])
    if argv and argv[0] == "sign":
        argv = argv[1:]
    elif argv and not argv[0].startswith("-"):
        raise ValueError(f"design: the kinds are sign (default), {', '.join(KINDS)}, got {argv[0]!r}.")
    asked = parse(Design, argv, prog="spectrain design")
    with claimed(asked.out or Path("design")) as folder:
        _run(asked, folder)
    return 0


def _run(asked: Design, folder: Path) -> None:
    schedule = approx.sign_schedule(
        asked.lower,
        asked.upper,
        steps=5 if (asked.steps, asked.products, asked.tol) == (None, None, None) and _one(asked) else asked.steps,
        products=asked.products,
        tol=asked.tol,
        degree=asked.degree if isinstance(asked.degree, str) else _degrees(asked),
        cushion=asked.cushion,
        margin=asked.margin,
        gram=asked.gram,
        symmetric=asked.symmetric,
        aspect=asked.aspect,
        dtype=asked.dtype,
    )
    print(schedule)
    print(_steps(schedule))
    texts: dict[str, str] = {name: approx.as_code(schedule, name) for name in asked.code}
    for name, text in texts.items():
        print(f"\n# ---- {name} ----\n{text}")
    _write(schedule, texts, folder)


def _one(asked: Design) -> bool:
    """Whether --degree names one degree, not a list of steps."""
    return isinstance(asked.degree, str) or len(asked.degree) == 1


def _degrees(asked: Design) -> int | tuple[int, ...]:
    assert not isinstance(asked.degree, str)
    return asked.degree[0] if len(asked.degree) == 1 else asked.degree


def _steps(schedule: approx.Schedule) -> str:
    lines = ["step  interval in                     error after     alternation points"]
    for i, curve in enumerate(approx.curves.step_curves(schedule), start=1):
        low, high = curve.interval
        error = max(map(abs, curve.heights))
        points = "  ".join(f"{x:.4g}" for x in curve.points)
        lines.append(f"{i:4}  [{low:.6g}, {high:.6g}]".ljust(38) + f"{error:<15.6g} {points}")
    return "\n".join(lines)


def _write(schedule: approx.Schedule, texts: dict[str, str], folder: Path) -> None:
    """The folder that holds the design: JSON, the error curves as a page and a picture, code."""
    files = {f"polar_{name}.py": text + "\n" for name, text in texts.items()}
    write(folder, "schedule", json.loads(schedule.to_json()), curves(schedule, "singular value"), files)
