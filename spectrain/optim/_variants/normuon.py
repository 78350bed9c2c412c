"""Lines of equal long-run size (NorMuon): rows, columns where out < in, over their running size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrain.optim._layout.held import Shape, count, crossing
from spectrain.optim._variants.variant import Turn, Variant


def line_rates(moment: Tensor, squares: Tensor, widths: Tensor, pieces: Sequence[int], *, beta2: float | int) -> Tensor:
    r"""Return the factor of each line under NorMuon (Li et al., arXiv 2510.05491); ``moment`` advances in place.

    For line i of O = msign(N) with mean square s_i: v_i <- beta2 v_i + (1 - beta2) s_i, and the line is divided by
    sqrt(v_i). Each matrix is then scaled back to the Frobenius norm of O, so that every ``scale=`` keeps its meaning;
    a correction of v for its start would cancel. ``squares`` are sums over lines of length ``widths``, ``pieces`` the
    numbers of lines of the matrices that follow each other. Lines are the rows, as in the paper, where out >= in. The
    rows of an exact msign with out < in all have norm 1; there they are the columns, as in the code that made the rule
    known (modded-nanogpt), which compares width and height too. Of an orthogonal matrix, out = in, no line differs.

    >>> moment = torch.zeros(2)
    >>> rates = line_rates(moment, torch.tensor([4.0, 16.0]), torch.ones(2), [2], beta2=0.5)
    >>> (10 * rates).round().tolist()
    [16.0, 8.0]
    """
    moment.lerp_(squares / widths, 1 - beta2)
    return rates_of(moment, squares, pieces)


def rates_of(moment: Tensor, squares: Tensor, pieces: Sequence[int]) -> Tensor:
    """``line_rates`` of averages that have taken in this step."""
    rates = torch.where(moment > 0, moment.rsqrt(), 0.0)
    scales = [
        torch.where(new > 0, (old / new).sqrt(), 0.0).expand(len(r))
        for s, r in zip(squares.split(pieces), rates.split(pieces), strict=True)
        for old, new in [(s.sum(), (r.square() * s).sum())]
    ]
    return rates * torch.cat(scales)


def _after(turn: Turn) -> None:
    squares = turn.held.squares(turn.tensors, crossing)
    moments = [state["line_second_moment"] for state in turn.states]
    rates = [
        _rates(*found, advance=turn.advance)
        for found in zip(moments, squares, turn.held.shapes, turn.beta2, strict=True)
    ]
    for view, rate in turn.held.pieces(turn.tensors, rates, crossing):
        view.mul_(rate)


def _rates(moment: Tensor, squares: Tensor, shapes: list[Shape], beta2: float | int, *, advance: bool) -> Tensor:
    """The factors of the lines of one parameter."""
    pieces = count(shapes, crossing)
    if not advance:
        return rates_of(moment, squares, pieces)
    widths = torch.cat([squares.new_full((max(shape),), min(shape)) for shape in shapes])
    return line_rates(moment, squares, widths, pieces, beta2=beta2)


NORMUON = Variant(
    name="normuon",
    words="rows of msign, columns where out < in, over the root of their running mean square",
    keeps={"line_second_moment": "lines"},
    after=_after,
)
