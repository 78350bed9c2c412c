"""What a check on a device is made of: numbers that are the same everywhere, a distance, and the most it may be."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Check(NamedTuple):
    """One number and the most that it may be."""

    case: str
    error: float
    most: float

    def row(self) -> dict[str, object]:
        """For the record; raises ArithmeticError where the number is too large, or is none."""
        if not self.error <= self.most:
            raise ArithmeticError(f"{self.case}: {self.error:.3g}, at most {self.most:.3g}")
        return {"case": self.case, "error": self.error, "at most": self.most}


def noise(*shape: int, seed: int) -> Tensor:
    """Gaussian numbers in float64, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative Frobenius norm of the difference."""
    return float((found.detach().cpu().double() - exact).norm() / exact.norm())


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the spacing of numbers at 1."""
    return torch.finfo(dtype).eps / 2


def finished(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A step that ends when the device is done."""

    def run() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run
