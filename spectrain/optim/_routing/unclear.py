"""The error for parameters of which nothing says what they are: with rules to paste and to correct."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class Unclear(NamedTuple):
    """A parameter that nothing decides."""

    path: str
    shape: tuple[int, ...]
    module: str


def rules_to_paste(unclear: Sequence[Unclear]) -> str:
    """Return the message: every parameter, then a rule for each pattern of names, chosen by shape and so to be checked.

    >>> print(rules_to_paste([Unclear("blocks.0.up", (8, 64, 32), "Mix"), Unclear("blocks.1.up", (8, 64, 32), "Mix")]))
    Nothing says what these parameters are:
      blocks.0.up  (8, 64, 32)  of Mix
      blocks.1.up  (8, 64, 32)  of Mix
    Say it with rules=. These are guesses from their shapes: check each before you paste it.
    rules={
        "blocks.*.up": Matrix(batch=1),  # 8 of out 64 x in 32; stored in x out: Matrix(batch=1, transposed=True)
    }
    A rule is 'muon' (one out x in matrix), 'adamw', Matrix(transposed=True) for x @ W, Matrix(batch=1) for stacked \
experts or Matrix(split=(q, k, v)) for fused matrices.
    """
    lines = "\n".join(f"  {path}  {shape}  of {module}" for path, shape, module in unclear)
    patterns: dict[tuple[str, tuple[int, ...]], int] = defaultdict(int)
    for path, shape, _ in unclear:
        patterns[re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)", "*", path), shape] += 1
    rules = "\n".join(f'    "{pattern}": {_guess(shape)}' for pattern, shape in patterns)
    return (
        f"Nothing says what these parameters are:\n{lines}\nSay it with rules=. These are guesses from their "
        f"shapes: check each before you paste it.\nrules={{\n{rules}\n}}\nA rule is 'muon' (one out x in matrix), "
        "'adamw', Matrix(transposed=True) for x @ W, Matrix(batch=1) for stacked experts or Matrix(split=(q, k, v)) "
        "for fused matrices."
    )


def _guess(shape: tuple[int, ...]) -> str:
    """A rule and what it would mean, as a line of a dictionary."""
    if shape[0] == 1:
        return f'"adamw",  # {shape}: one entry first, as a table of positions has'
    if len(shape) == 2:
        out, in_ = shape
        return f'"muon",  # out {out} x in {in_}; stored in x out: Matrix(transposed=True); a table: "adamw"'
    if len(shape) == 3:
        count, out, in_ = shape
        transposed = "stored in x out: Matrix(batch=1, transposed=True)"
        return f"Matrix(batch=1),  # {count} of out {out} x in {in_}; {transposed}"
    return f'"adamw",  # {shape}; a convolution: Matrix(flatten=True)'
