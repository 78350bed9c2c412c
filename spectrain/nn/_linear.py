"""Linear maps as torch's, which read their weights as they lie for a single row."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectrain.nn._eager import by_formula

_FAST = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    r"""``x W^T + b``: `torch.nn.Linear`, and the same numbers to rounding.

    One row in float32 or bfloat16 on a processor, without a gradient, is a matrix times a vector here, summed in
    float32: what torch calls for it is a product of two matrices, which brings weights in bfloat16 into another order
    before it reads them. All else is torch's.

    >>> import torch
    >>> layer = Linear(3, 2)
    >>> x = torch.randn(1, 1, 3)
    >>> with torch.no_grad():
    ...     torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        w, b = self.weight, self.bias
        if torch.is_grad_enabled() or x.numel() != x.shape[-1] or not _one_row(x, w):
            return F.linear(x, w, b)
        out = torch.mv(w, x.reshape(-1))
        return (out if b is None else out.add_(b)).view(*x.shape[:-1], w.shape[0])


def _one_row(x: Tensor, w: Tensor) -> bool:
    if x.dtype not in _FAST or x.dtype != w.dtype or x.shape[-1] != w.shape[-1]:
        return False
    return not torch.is_autocast_enabled("cpu") and by_formula(x, w)  # of which torch.mv knows nothing
