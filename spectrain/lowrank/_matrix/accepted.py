"""Which dtype each matrix is factored in, and which shapes have factors."""

import torch

from spectrain._arrays.kinds import check_floating, check_matrix_shape

WORKING = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}


def check_matrix(shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Raise TypeError for a dtype that is not computed with, ValueError for a shape that is no matrix or empty."""
    check_floating(dtype, name)
    check_matrix_shape(shape, name)
    if 0 in shape[-2:]:
        raise ValueError(f"{name}: needs at least one row and one column, got shape {tuple(shape)}")
