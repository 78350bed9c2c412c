"""Which device a run uses."""

import torch


def choose_device(name: str) -> str:
    """``auto`` is CUDA where there is one; any other name must be a device that torch can use."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name!r} cannot be used: {str(error).splitlines()[0]} Try 'auto' or 'cpu'."
        ) from None
    return name
