"""The likelihood of text under a model whose head is zero, as that of a new run: known without what the head sees.

Every logit is zero, whatever the features, so every token has the probability 1 / vocabulary. The validation at step 0
costs the softmax of one batch instead of a forward pass over all.
"""

import torch
from torch import Tensor

from spectrain import nn, objectives


@torch.no_grad()
def is_blank(model: nn.LanguageModel) -> bool:
    """Whether the head is zero, and every other weight finite: not a number times zero would be none either."""
    return not model.head.weight.any() and all(bool(p.isfinite().all()) for p in model.parameters())


class BlankLikelihood:
    """:func:`spectrain.train._jobs.samples.likelihood` of such a model and no other, bit for bit.

    The same sums of the same softmax, of features that are zero and have one entry. They depend on the shape of the
    targets and on which of them count; what was summed for the last batch holds for the next one where both agree.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, model: nn.LanguageModel, inputs: Tensor, targets: Tensor, **more: Tensor) -> Tensor:
        """The sum of nats of all targets; what a model is told besides changes no zero."""
        counts = targets >= 0
        if self._last is None or not torch.equal(self._last[0], counts):
            head = model.head.weight[:, :1]
            features = head.new_zeros((*targets.shape, 1))
            self._last = counts, objectives.linear_negative_log_likelihood(features, head, targets)
        return self._last[1]
