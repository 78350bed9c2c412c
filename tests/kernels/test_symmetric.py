"""The symmetric kernel in the interpreter: any size, layout and dtype, one rounding from float64, exactly symmetric."""

from pathlib import Path

import pytest
import torch

from spectrain._arrays._triton.judges import symmetric_roundings

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((1, 1, 1), (2, 5, 70), (1, 64, 32), (2, 65, 33), (1, 150, 100))
ROUNDED_ONCE = 1.05  # sums in float32 add little to the one rounding


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inside(X, fill=float("nan")):
    """The same numbers as the middle of a larger tensor: whoever reads past their end reads NaN."""
    b, m, n = X.shape
    around = X.new_full((b + 2, m + 130, n + 130), fill)
    around[1:-1, :m, :n] = X
    return around[1:-1, :m, :n]


LAYOUTS = {
    "row by row": lambda X: X.contiguous(),
    "column by column": lambda X: X.mT.contiguous().mT,
    "inside": inside,
    "every second": lambda X: X.repeat_interleave(2, -1)[..., ::2],
    "one for all": lambda X: X[:1].expand(X.shape),
}


def symmetric(k, b, dtype, seed=1):
    C = noise(b, k, k, dtype=dtype, seed=seed)
    return C.tril() + C.tril(-1).mT


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_size_is_one_rounding_from_float64(interpreted, dtype, shape):
    product = interpreted("symmetric").symmetric_product
    b, k, _ = shape
    A, C = inside(noise(*shape, dtype=dtype)), inside(symmetric(k, b, dtype))
    for added, beta, alpha in ((None, 1.0, 1.0), (C, -0.5, 1.5), (C, 2.0, -1.0), (C, 0.0, 3.0)):
        found = product(added, A, A.mT, beta=beta, alpha=alpha)
        assert symmetric_roundings(found, added, A, A.mT, beta, alpha) <= ROUNDED_ONCE
        assert torch.equal(found, found.mT)
        assert found.dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_any_factor(interpreted, layout):
    product = interpreted("symmetric").symmetric_product
    A, C = noise(2, 70, 40), symmetric(70, 2, torch.float32)
    A, B, C = (LAYOUTS[layout](X) for X in (A, A.mT, C))
    B = A.mT if layout == "one for all" else B
    found = product(C, A, B, beta=0.5)
    assert symmetric_roundings(found, C, A, B, 0.5) <= ROUNDED_ONCE


@pytest.mark.parametrize("layout", ["row by row", "column by column", "inside"])
def test_out_is_written_where_it_lies_and_nowhere_else(interpreted, layout):
    product = interpreted("symmetric").symmetric_product
    A = noise(2, 70, 40)
    around = torch.full((4, 202, 202), 7.0)
    out = around[1:-1, :70, :70] if layout == "inside" else LAYOUTS[layout](torch.full((2, 70, 70), 7.0))
    assert product(None, A, A.mT, out=out) is out
    assert torch.equal(out, product(None, A, A.mT))
    out.fill_(7.0)
    assert bool((around == 7).all())


def circulants(k, count, dtype):
    """Symmetric matrices of small integers that commute: what they multiply to is exact in float32."""
    index = (torch.arange(k)[:, None] - torch.arange(k)).abs()
    numbers = torch.randint(-3, 4, (count, k), generator=torch.Generator().manual_seed(2)).to(dtype)
    return [row[torch.minimum(index, k - index)][None] for row in numbers]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_different_matrices_that_commute_and_a_sum_without_a_product(interpreted, dtype):
    product = interpreted("symmetric").symmetric_product
    A, B, C = circulants(67, 3, dtype)
    assert torch.equal(product(C, A, B, beta=2.0), (2 * C.double() + A.double() @ B.double()).to(dtype))
    nothing = A[:, :, :0]
    assert torch.equal(product(C, nothing, nothing.mT, beta=2.0), 2 * C)
    assert product(None, A[:0], B[:0]).shape == (0, 67, 67)
    assert product(None, A[:, :0], B[:, :, :0]).shape == (1, 0, 0)


def test_what_is_added_is_read_below_the_diagonal_and_with_beta_zero_nowhere(interpreted):
    product = interpreted("symmetric").symmetric_product
    A, C = noise(1, 70, 40), symmetric(70, 1, torch.float32)
    above = torch.where(torch.ones(70, 70).triu(1) > 0, float("nan"), C)
    assert torch.equal(product(above, A, A.mT), product(C, A, A.mT))
    assert torch.equal(product(C * torch.nan, A, A.mT, beta=0.0), product(None, A, A.mT))


@pytest.mark.parametrize("tiling", range(3))
def test_every_tiling(interpreted, tiling):
    kernels = interpreted("symmetric")
    A, C = inside(noise(1, 200, 75, dtype=torch.bfloat16)), symmetric(200, 1, torch.bfloat16)
    found = kernels.symmetric_product(C, A, A.mT, beta=-0.5, alpha=1.5, tiling=kernels.TILINGS[tiling])
    assert symmetric_roundings(found, C, A, A.mT, -0.5, 1.5) <= ROUNDED_ONCE


WRONG = {
    "mirror forgotten": ("tl.store(OUT + columns * o_row + rows * o_column, found, mask=below)", "pass"),
    "mirrored onto itself": ("OUT + columns * o_row + rows * o_column", "OUT + rows * o_row + columns * o_column"),
    "diagonal forgotten": ("(rows >= columns)", "(rows > columns)"),
    "a stride of another": ("along[:, None] * b_row", "along[:, None] * a_column"),
    "one batch for all": ("A += batch * a_batch + rows", "A += rows"),
    "tail not masked": ("(along[:, None] < inner) & (columns < k)", "columns < k"),
    "tail forgotten": ("range(0, inner, DEPTH)", "range(0, inner - DEPTH, DEPTH)"),
    "beta ignored": ("total += beta * added", "total += added"),
    "C ignored": ("if ADDS:", "if False:"),
    "alpha ignored": ("total = alpha * total", "total = 1.0 * total"),
    "summed in bfloat16": (
        'total = tl.dot(a, b, total, input_precision="ieee")',
        "total = tl.dot(a, b, total).to(tl.bfloat16).to(tl.float32)",
    ),
    "rounded twice": ("total = alpha * total", "total = (alpha * total).to(tl.bfloat16).to(tl.float32)"),
    "one row of tiles": ("return row, number", "return row * 0, number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_kernel_is_found_out(interpreted, case):
    A, C = noise(2, 100, 200, dtype=torch.bfloat16), symmetric(100, 2, torch.bfloat16)
    A = inside(A) if "mask" in case else A
    B = A.mT.contiguous() if "stride" in case else A.mT
    out = inside(torch.full_like(C, torch.nan))
    run = lambda kernels: kernels.symmetric_product(C, A, B, beta=-0.5, alpha=1.5, out=out)  # noqa: E731
    assert symmetric_roundings(run(interpreted("symmetric")), C, A, B, -0.5, 1.5) <= ROUNDED_ONCE
    out.fill_(torch.nan)
    assert not symmetric_roundings(run(interpreted("symmetric", *WRONG[case])), C, A, B, -0.5, 1.5) <= 4


ROOT = "tl.sqrt(8.0 * number + 1.0)"
DOWN, UP = f"{ROOT} * (1 - 2.0**-22)", f"{ROOT} * (1 + 2.0**-22)"  # twice as far off as a GPU's may be
CORRECTIONS = {
    DOWN: "row = tl.where((row + 1) * (row + 2) // 2 <= number, row + 1, row)",
    UP: "row = tl.where(row * (row + 1) // 2 > number, row - 1, row)",
}


@pytest.mark.parametrize("root", [ROOT, DOWN, UP])
def test_the_place_of_a_tile_is_right_up_to_a_thousand_million_tiles(interpreted, root):
    row = torch.cat([torch.arange(40), torch.arange(46_200, 46_300)])
    ends = torch.cat([row * (row + 1) // 2, row * (row + 3) // 2]).int()  # the first and the last tile of every row
    right = (torch.cat([row, row]).tolist(), torch.cat([row * 0, row]).tolist())
    kernels = interpreted("symmetric", ROOT, root)
    assert places(kernels, ends) == right
    if root in CORRECTIONS:
        source = Path(kernels.__file__)
        source.write_text(source.read_text().replace(CORRECTIONS[root], "pass"))
        kernels.__spec__.loader.exec_module(kernels)
        assert places(kernels, ends) != right


def places(kernels, numbers):
    import triton

    found = torch.empty(2, 512, dtype=torch.int32)
    padded = torch.nn.functional.pad(numbers, (0, 512 - len(numbers)))
    triton.jit(_places)[(1,)](padded, found, kernels.place)
    return tuple(part[: len(numbers)].tolist() for part in found)


def _places(NUMBERS, FOUND, place):
    import triton.language as tl

    at = tl.arange(0, 512)
    row, column = place(tl.load(NUMBERS + at))
    tl.store(FOUND + at, row)
    tl.store(FOUND + 512 + at, column)
