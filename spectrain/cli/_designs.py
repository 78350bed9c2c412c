"""``spectrain design KIND``: best polynomials, roots, clip, step and published recipes; JSON, a picture, code."""

import ast
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from spectrain import approx
from spectrain._drawing import Line, Picture, save
from spectrain._files.write import write_json, write_text
from spectrain.cli._parse import parse
from spectrain.train.internal import claimed

FUNCTIONS = (
    "exp", "log", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sqrt", "cbrt", "abs",
    "sign", "expm1", "log1p", "exp2", "log2", "log10", "maximum", "minimum", "where", "square",
)  # fmt: skip

_LARGEST_ROOT = 1000
"""Beyond it the coefficients of a step leave double precision, and finding that out takes for ever."""

_LARGEST_UPPER = 1e150
"""Its square is a double."""

_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt,
    ast.GtE,
)  # fmt: skip
"""All that an expression may consist of: numbers, x, arithmetic, comparisons, calls of :data:`FUNCTIONS`."""


@dataclass(frozen=True)
class Best:
    """The best polynomial for a function: max weight |f - p| is least, with both bounds of the least error."""

    f: str
    """The function of x: arithmetic and NumPy's names, for instance 'exp(-x) * abs(x - 0.1)'."""
    interval: tuple[float, ...] = (-1.0, 1.0)
    """a b, or a b c d ... for the union of [a, b], [c, d], ..."""
    powers: tuple[int, ...] = (10,)
    """One number: the degree. Several: the powers."""
    weight: str | None = None
    """A positive function of x."""
    constraint: tuple[str, ...] = ()
    """Conditions kind:where:value, kind value, slope or coefficient: value:0:1 is p(0) = 1."""
    out: Path = Path("design")
    """Folder for best.json, best.html, best.svg and best.py."""

    def run(self) -> None:
        if len(self.interval) < 2 or len(self.interval) % 2:
            raise ValueError(f"design minimax: --interval takes pairs of ends, got {len(self.interval)} numbers.")
        pieces = list(zip(self.interval[::2], self.interval[1::2], strict=True))
        powers = self.powers[0] if len(self.powers) == 1 else self.powers
        weight = function(self.weight) if self.weight else None
        f = function(self.f)
        best = approx.minimax(f, powers, pieces, weight=weight, constraints=[_condition(c) for c in self.constraint])
        print(best)
        print("reference: " + "  ".join(f"{x:.6g}" for x in best.reference))
        facts = ("error", "lower", "upper", "proven", "status", "interval", "reference", "signs", "chebyshev")
        data = {name: getattr(best, name) for name in facts}
        data |= asdict(best.polynomial) | {"exact": [str(c) for c in best.exact], "f": self.f, "weight": self.weight}
        code = _horner(best, self.f)
        print("\n" + code)
        x = np.concatenate([a + (b - a) * (1 - np.cos(np.linspace(0, np.pi, 1500))) / 2 for a, b in pieces])
        at = np.array(best.reference)
        e = _error(best, f, weight)
        lines = (
            Line(x, e(x), name="weighted error" if weight else "f - p"),
            Line(np.array([x[0], x[-1]]), np.full(2, best.error), style="dash", color=7, name="plus and minus E"),
            Line(np.array([x[0], x[-1]]), np.full(2, -best.error), style="dash", color=7),
            Line(at, e(at), style="marks", color=1, name=f"{len(at)} points of the reference"),
        )
        title = f"{self.f}: E = {best.error:.6g}, {'proven' if best.proven else 'not proven'}"
        write(self.out, "best", data, Picture(title, "x", "error", lines), {"best.py": code})


@dataclass(frozen=True)
class Root:
    """A schedule for P^(s/r) by the coupled iteration, eigenvalues of P in [lower, 1]."""

    r: int = 2
    """The root."""
    s: int = -1
    """The power."""
    lower: float = 1e-4
    """Least eigenvalue over the largest."""
    steps: int | None = None
    """So many polynomials."""
    tol: float | None = None
    """As many steps as this error takes."""
    terms: int = 3
    """Terms of each polynomial."""
    out: Path = Path("design")
    """Folder for root.json, root.html, root.svg and root.py."""

    def run(self) -> None:
        if max(self.r, abs(self.s)) > _LARGEST_ROOT:
            raise ValueError(f"design root: r and |s| are at most {_LARGEST_ROOT}, got r = {self.r}, s = {self.s}.")
        schedule = approx.root_schedule(
            self.r, self.s, lower=self.lower, steps=self.steps, tol=self.tol, terms=self.terms
        )
        print(schedule)
        rows = ",\n".join(f"    {p.coefficients}" for p in schedule.polynomials)
        start = "np.eye(len(P))" if self.s < 0 else f"np.linalg.matrix_power(P, {-(-self.s // self.r)})"
        power = -self.s if self.s < 0 else -(-self.s // self.r) * self.r - self.s
        code = (
            f"import numpy as np\n\nSCHEDULE = [\n{rows},\n]\n\n\ndef root(P):\n"
            f'    """P^({self.s}/{self.r}), eigenvalues of P in [{self.lower}, 1]."""\n'
            f"    G = {start}\n    for coefficients in SCHEDULE:\n"
            "        W = sum(c * np.linalg.matrix_power(P, k) for k, c in enumerate(coefficients))\n"
            f"        G = G @ np.linalg.matrix_power(W, {power})\n"
            f"        P = np.linalg.matrix_power(W, {self.r}) @ P\n"
            "    return G\n"
        )
        print("\n" + code)
        write(
            self.out,
            "root",
            json.loads(schedule.to_json()),
            curves(schedule, "x = eigenvalue^(1/r)"),
            {"root.py": code},
        )


@dataclass(frozen=True)
class Gap:
    """The step at 1, or min(x, 1), on [0, upper], within an error outside a gap around 1."""

    upper: float = 2.0
    """Largest singular value."""
    gap: float = 0.1
    """No promise for the step on (1 - gap, 1 + gap)."""
    steps: int | None = None
    """So many polynomials."""
    tol: float | None = None
    """As many steps as this error takes."""
    out: Path = Path("design")
    """Folder for the JSON, the picture and the code."""

    def run(self, kind: Literal["step", "clip"] = "step") -> None:
        if not self.upper <= _LARGEST_UPPER:
            raise ValueError(f"design {kind}: --upper is at most {_LARGEST_UPPER:g}, got {self.upper:g}.")
        make = approx.step_schedule if kind == "step" else approx.clip_schedule
        made = make(self.upper, gap=self.gap, steps=self.steps, tol=self.tol)
        print(
            f"{kind} on [0, {made.upper:g}] outside {made.gap}: error <= {made.error:.4g}, {made.products:g} products"
        )
        print(made.sign)
        x = np.linspace(0, made.upper, 2001)
        lines = (
            Line(x, made(x), name=kind),
            Line(x, (x > 1) * 1.0 if kind == "step" else np.minimum(x, 1), style="dash", name="target"),
        )
        last = "(above + 1) / 2" if kind == "step" else "((x + 1) - (x - 1) * above) / 2"
        rows = ",\n".join(f"    {tuple(p.coefficients)}" for p in made.sign.polynomials)
        code = (
            f"SCHEDULE = [  # coefficients of x, x^3, x^5, ...\n{rows},\n]\n\n\ndef {kind}(x):\n"
            f"    above = (x * x - 1) / {made.scale!r}\n    for coefficients in SCHEDULE:\n"
            "        above = sum(c * above ** (2 * k + 1) for k, c in enumerate(coefficients))\n"
            f"    return {last}\n"
        )
        print("\n" + code)
        data = {"kind": kind, "upper": made.upper, "scale": made.scale, "gap": made.gap, "error": made.error}
        data["sign"] = json.loads(made.sign.to_json())
        write(
            self.out, kind, data, Picture(f"{kind}, error {made.error:.3g}", "x", "value", lines), {f"{kind}.py": code}
        )


@dataclass(frozen=True)
class Recipe:
    """A published schedule with our proof of its error on [lower, 1]; without a name, the list of them all."""

    name: tyro.conf.Positional[str] = ""
    """Its name."""
    lower: float = 1e-3
    """Least singular value."""
    out: Path = Path("design")
    """Folder for the JSON, the picture and the code."""

    def run(self) -> None:
        from spectrain.approx.recipes import RECIPES, certify

        if not self.name:
            for name in RECIPES:
                schedule = certify(name, self.lower)
                print(
                    f"{name:24} {schedule.products:4g} products, error {schedule.error:9.3g}   {RECIPES[name].source}"
                )
            return
        schedule = certify(self.name, self.lower)
        print(f"{schedule}\nsource: {RECIPES[self.name].source}")
        code = approx.as_code(schedule, "torch")
        print("\n" + code)
        write(
            self.out, "recipe", json.loads(schedule.to_json()), curves(schedule, "singular value"), {"recipe.py": code}
        )


KINDS: dict[str, tuple[type, tuple[Any, ...]]] = {
    "minimax": (Best, ()), "root": (Root, ()), "step": (Gap, ("step",)), "clip": (Gap, ("clip",)),
    "recipe": (Recipe, ()),
}  # fmt: skip


def main(kind: str, argv: list[str]) -> int:
    """Run ``spectrain design KIND ARGV``; no other process writes into its folder meanwhile."""
    make, more = KINDS[kind]
    asked: Any = parse(make, argv, prog=f"spectrain design {kind}")
    lists_only = isinstance(asked, Recipe) and not asked.name
    with contextlib.nullcontext() if lists_only else claimed(asked.out):
        asked.run(*more)
    return 0


def function(text: str) -> Callable[[Any], Any]:
    """A function of x from arithmetic, comparisons, numbers, pi, e and NumPy's names; nothing else is evaluated.

    Numbers are doubles, so that no expression computes for ever: ``9**9**9**9`` overflows at once. Raises ValueError
    for what is no such expression.

    >>> float(function("exp(0*x) + abs(-x)")(2.0))
    3.0
    """
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
        _check(tree, text)
        code = compile(_Doubles().visit(tree), "<function>", "eval")
    except (SyntaxError, RecursionError, MemoryError) as problem:
        what = problem.msg if isinstance(problem, SyntaxError) else "nested too deeply"
        raise ValueError(f"design: {_short(text)!r} is no expression in x ({what}).") from problem
    known = {name: getattr(np, name) for name in FUNCTIONS} | {"pi": np.pi, "e": np.e}

    def value(x: Any) -> Any:
        try:
            return eval(code, {"__builtins__": {}}, known | {"x": x}) + 0 * x
        except (OverflowError, ZeroDivisionError) as problem:
            raise ValueError(f"design: a number in {_short(text)!r} is no double ({problem}).") from problem

    return value


def _check(tree: ast.AST, text: str) -> None:
    """Raise ValueError for anything but arithmetic, comparisons, numbers, x and functions with their arguments."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else None
        number = not isinstance(node, ast.Constant) or type(node.value) in (int, float)
        values = name in ("x", "pi", "e") and node not in called
        if not isinstance(node, _NODES) or not number or not (name is None or values or name in FUNCTIONS):
            what = name or type(node).__name__
            raise ValueError(
                f"design: {what!r} is not known in {_short(text)!r}; there are x, pi, e, {', '.join(FUNCTIONS)}."
            )
        if name in FUNCTIONS and node not in called:
            raise ValueError(f"design: {name} in {_short(text)!r} is a function; write {name}(...).")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            takes = getattr(getattr(np, node.func.id), "nin", 3)
            if len(node.args) != takes:
                raise ValueError(f"design: {node.func.id} takes {takes} arguments, got {len(node.args)}.")


class _Doubles(ast.NodeTransformer):
    """Whole numbers as doubles: Python's own grow without end."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        try:
            return ast.copy_location(ast.Constant(float(str(node.value))), node)
        except ValueError as problem:  # more digits than Python prints
            raise ValueError("design: a number is too long; write it as 1e400 or shorter.") from problem


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _condition(text: str) -> tuple[str, float | int, float]:
    match = re.fullmatch(r"(\w+):([^:]+):([^:]+)", text)
    if match is None:
        raise ValueError(f"design: a constraint is kind:where:value, for instance value:0:1, got {text!r}.")
    kind, at, v = match.groups()
    return (kind, int(at) if kind == "coefficient" else float(at), float(v))


def _error(best: approx.Minimax, f: Callable[[Any], Any], weight: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return lambda x: (f(x) - best(x)) * (weight(x) if weight else 1.0)


def _horner(best: approx.Minimax, name: str) -> str:
    """The polynomial as Python to paste, by Clenshaw's recurrence: stable at any degree."""
    low, high = best.interval[0][0], best.interval[-1][1]
    rows = ",\n".join(f"    {c!r}" for c in best.chebyshev)
    proof = "proven" if best.proven else "not proven"
    return (
        f"CHEBYSHEV = [\n{rows},\n]\n\n\ndef p(x):\n"
        f'    """{name} on [{low!r}, {high!r}]: error {best.upper:.6g}, {proof}."""\n'
        f"    t = ((x - {low!r}) - ({high!r} - x)) / {high - low!r}\n    here = ahead = 0 * x\n"
        "    for c in reversed(CHEBYSHEV[1:]):\n        here, ahead = 2 * t * here - ahead + c, here\n"
        "    return t * here - ahead + CHEBYSHEV[0]\n"
    )


def curves(schedule: approx.Schedule, across: str) -> Picture:
    """The error of every step over where its values stand, with the points where it alternates."""
    lines: list[Line] = []
    for i, curve in enumerate(approx.curves.step_curves(schedule)):
        lines.append(Line(np.array(curve.x), np.array(curve.error), name=f"step {i + 1}", color=i))
        lines.append(Line(np.array(curve.points), np.array(curve.heights), style="marks", color=i))
    return Picture(f"{schedule.target}: error {schedule.error:.4g}", across, "p(x) - 1", tuple(lines), log="x")


def write(folder: Path, name: str, data: dict[str, Any], picture: Picture, code: dict[str, str]) -> None:
    """Write a design into its claimed folder: ``name``.json, .html, .svg and code; print where the page is."""
    write_json(folder / f"{name}.json", data)
    for file, text in code.items():
        write_text(folder / file, text)
    for ending in ("html", "svg"):
        save(picture, folder / f"{name}.{ending}")
    print(f"plot: {folder / name}.html")
