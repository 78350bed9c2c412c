"""Losses of embeddings that compare every example with all others, in blocks of rows."""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def info_nce(
    queries: Float[Tensor, "batch width"],
    documents: Float[Tensor, "documents width"],
    negatives: Float[Tensor, "more width"] | None = None,
    *,
    temperature: float | int | Tensor = 0.05,
    symmetric: bool = False,
    normalize: bool = True,
    block: int = 1024,
) -> Float[Tensor, ""]:
    """``-mean_i log softmax_j(<q_i, d_j> / temperature)[i]``: each query is to find its own document.

    ``negatives`` are further documents that belong to no query (hard negatives), seen by all of them.
    ``symmetric`` averages with the loss of documents that look for their query (negatives apart).
    ``normalize`` makes embeddings unit vectors first, so that the products are cosines.

    Computed in float32 for narrower embeddings, also under autocast; unit vectors at any scale. Memory: three times
    ``block`` rows of similarities; gradients are made block by block in the forward pass. Cost:
    ``6 batch (batch + more) width`` operations, twice that if symmetric; a third where no gradient is asked for.
    Differentiable once: ``create_graph=True`` raises ``RuntimeError``.

    Raises ``ValueError`` for fewer than two documents in all (nothing to tell apart), for counts of queries and
    documents that differ, and unless temperature is positive and finite.

    Source: van den Oord, Li, Vinyals, "Representation learning with contrastive predictive coding" (2018).

    >>> x = torch.eye(4)
    >>> bool(info_nce(x, x) < info_nce(x, x.flip(0)))
    True
    """
    if len(queries) != len(documents):
        raise ValueError(
            f"info_nce: each query has one document, got {len(queries)} queries and {len(documents)} documents."
        )
    others = documents if negatives is None else _joined(documents, negatives)
    if len(others) < 2:
        raise ValueError("info_nce: a single document leaves nothing to tell apart; give two examples or negatives.")
    _check(temperature, block)
    with torch.autocast(queries.device.type, enabled=False):
        queries, documents, others = _prepared((queries, documents, others), normalize)
        own = torch.arange(len(queries), device=queries.device)
        heat = torch.as_tensor(temperature, dtype=queries.dtype, device=queries.device)
        loss: Tensor = _Surprise.apply(queries, others, heat, own, block) / len(queries)
        if symmetric:
            loss = (loss + _Surprise.apply(documents, queries, heat, own, block) / len(queries)) / 2
        return loss


def supervised_contrastive(
    embeddings: Float[Tensor, "batch width"],
    labels: Int[Tensor, " batch"],
    *,
    temperature: float | int | Tensor = 0.1,
    normalize: bool = True,
    block: int = 1024,
) -> Float[Tensor, ""]:
    """``-mean_i mean_{p: label_p = label_i, p != i} log softmax_{j != i}(<h_i, h_j> / temperature)[p]``.

    Examples that are alone with their label take part as negatives only.

    Raises ``ValueError`` when no label occurs twice, and unless temperature is positive and finite.

    Source: Khosla et al., "Supervised contrastive learning" (2020), the form with the sum outside.

    >>> h, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
    >>> bool(supervised_contrastive(h, labels) < supervised_contrastive(h, labels[[0, 2, 1, 3]]))
    True
    """
    _check(temperature, block)
    if len(labels) != len(embeddings):
        raise ValueError(f"supervised_contrastive: {len(embeddings)} embeddings but {len(labels)} labels.")
    _, group, count = labels.unique(return_inverse=True, return_counts=True)
    partners = count[group] - 1
    anchors = int((partners > 0).sum())
    if anchors == 0:
        raise ValueError("supervised_contrastive: no label occurs twice in the batch, so there is no positive pair.")

    def rows(part: Tensor, index: Tensor, all_h: Tensor) -> Tensor:
        logits = part @ all_h.mT / temperature
        itself = index[:, None] == torch.arange(len(all_h), device=all_h.device)
        logits = logits.masked_fill(itself, -torch.inf)
        same = (group[index][:, None] == group) & ~itself
        surprise = logits.logsumexp(1) - logits.where(same, 0.0).sum(1) / partners[index].clamp(min=1)
        return surprise[partners[index] > 0].sum()

    with torch.autocast(embeddings.device.type, enabled=False):
        (h,) = _prepared((embeddings,), normalize)
        index = torch.arange(len(h), device=h.device)
        total = sum(
            checkpoint(rows, part, at, h, use_reentrant=False, preserve_rng_state=False)
            for part, at in zip(h.split(block), index.split(block), strict=True)
        )
    assert isinstance(total, Tensor)
    return total / anchors


class _Surprise(torch.autograd.Function):
    """``sum_i -log softmax_j(<a_i, b_j> / temperature)[own_i]``, a block of rows at a time.

    The derivative by the logits is the softmax less the target, known as soon as a block is. So forward makes the
    gradients as well, three products in all, and keeps no block.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: Tensor, own: Tensor, block: int) -> Tensor:
        needed = any(ctx.needs_input_grad)
        total, by_temperature = a.new_zeros(()), a.new_zeros(())
        by_a, by_b = (torch.zeros_like(x) if needed else x for x in (a, b))
        for part, at, place in zip(a.split(block), own.split(block), by_a.split(block), strict=True):
            logits = (part @ b.mT).div_(temperature)
            rows = torch.arange(len(at), device=at.device)
            wanted, logs = logits[rows, at, None], torch.log_softmax(logits, 1)
            total -= logs[rows, at].sum()
            if needed:
                pulls = logs.exp_()
                by_temperature += (pulls * (wanted - logits)).sum() / temperature
                pulls[rows, at] -= 1
                torch.mm(pulls.div_(temperature), b, out=place)
                by_b.addmm_(pulls.mT, part)
        ctx.save_for_backward(*([by_a, by_b, by_temperature] if needed else []))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():  # what was saved would count as constant
            raise RuntimeError("info_nce can be differentiated once only; leave create_graph=True away.")
        by_a, by_b, by_temperature = (grad * saved for saved in ctx.saved_tensors)
        return by_a, by_b, by_temperature, None, None


def _prepared(parts: tuple[Tensor, ...], normalize: bool) -> list[Tensor]:
    """In one dtype, float32 or wider: a tower under autocast and one outside of it make embeddings of two."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in parts), torch.float32)
    return [_unit(x.to(dtype)) if normalize else x.to(dtype) for x in parts]


def _joined(a: Tensor, b: Tensor) -> Tensor:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return torch.cat((a.to(dtype), b.to(dtype)))


def _unit(x: Tensor) -> Tensor:
    """Each row over its length, which is measured in units of its largest entry: squares of 1e-30 are nothing."""
    largest = x.detach().abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_ones(len(x), 1)
    return F.normalize(x / torch.where(largest > 0, largest, 1), dim=-1)


def _check(temperature: float | int | Tensor, block: int) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {float(temperature)}.")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}.")
