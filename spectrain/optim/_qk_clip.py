"""QK-clip: query and key weights shrunk so that no attention logit was above a threshold (article 11126)."""

import torch
from torch import Tensor

from spectrain.optim._layout.spread import local, own_box


@torch.no_grad()
def qk_clip_(
    query: Tensor,
    key: Tensor | None,
    *,
    heads: int,
    kv_heads: int | None = None,
    shared: int = 0,
    max_logits: Tensor,
    threshold: float | int = 100.0,
) -> Tensor:
    r"""Shrink query and key weights in place, head by head, where logits exceeded ``threshold``; return the factors.

    With S_h = ``max_logits[h]`` the largest logit of head h in the last step (scaled as the softmax sees it) and
    gamma_h = min(1, threshold / S_h), the logits of head h are multiplied by gamma_h:

        multi-head          W_q^h <- sqrt(gamma_h) W_q^h,   W_k^h <- sqrt(gamma_h) W_k^h
        grouped queries     W_k^g <- sqrt(gamma_g) W_k^g with gamma_g the least of the group,
                            W_q^h <- gamma_h / sqrt(gamma_g) W_q^h: each head gets its own gamma_h exactly
        shared rotary key   (MLA) the shared part of the key stays, its query part gets gamma_h
        no key (None)       keys that are values too, or that all heads share: the query gets gamma_h

    so that the logits of every other head stay as they were (with grouped queries through a query weight that grows as
    its key shrinks) and nothing is multiplied twice. It is a change of weights after the step,
    for any optimizer; momentum is left alone. Biases of query and key, where there are any, are shrunk by a second call
    with them as one column. Article 11126 (kexue.fm/archives/11126), Kimi K2 (arXiv 2507.20534, there tau = 100).

    - ``query``: (heads * width, in), head after head; ``key``: (kv_heads * (width - shared) + shared, in). Key head g
      serves the ``heads / kv_heads`` query heads that follow each other. With ``shared`` (the rotary part of MLA) the
      last rows of the key weight serve all heads and meet the last ``shared`` rows of each query head; they may also
      be a weight of their own, as in ``nn.Attention(latent=)``, and ``key`` is then without them.
      Also a ``DTensor``, however it lies on its mesh: each rank multiplies the rows that it has.
    - ``max_logits``: (heads,), finite; ``heads`` positive and a multiple of ``kv_heads`` (default: ``heads``).

    Raises ValueError for shapes that do not fit, a threshold that is not positive, and logits that are not finite.
    Cost: one pass over both weights.

    >>> query, key = torch.ones(4, 3), torch.ones(4, 3)
    >>> qk_clip_(query, key, heads=2, max_logits=torch.tensor([50.0, 400.0]), threshold=100.0).tolist()
    [1.0, 0.25]
    >>> query[:, 0].tolist(), key[:, 0].tolist()
    ([1.0, 1.0, 0.5, 0.5], [1.0, 1.0, 0.5, 0.5])
    """
    groups = heads if kv_heads is None else kv_heads
    width = _width(query, key, heads, groups, shared)
    if key is None:
        shared = width
    _check_logits(max_logits, heads, threshold)
    logits = max_logits.to(torch.promote_types(query.dtype, torch.float32))
    gamma = torch.where(logits > threshold, threshold / logits, 1.0)
    of_keys = gamma.view(groups, -1).amin(1).sqrt()
    of_queries = (gamma.view(groups, -1) / of_keys[:, None]).flatten()
    own = width - shared
    rows = torch.cat([of_queries[:, None].expand(-1, own), gamma[:, None].expand(-1, shared)], 1).flatten()
    _scale_rows(query, rows)
    if key is None:
        return gamma
    of_rows = torch.cat([of_keys.repeat_interleave(own), of_keys.new_ones(shared)])
    _scale_rows(key, of_rows[: len(key)])  # the shared rows may be a weight of their own
    return gamma


def _scale_rows(weight: Tensor, factors: Tensor) -> None:
    """Multiply rows, of those the ones that are here, rounding once; 16-bit weights in float32."""
    part = local(weight)
    rows = slice(*own_box(weight)[0])
    part.copy_(part.to(factors.dtype) * factors[rows].to(part.device)[:, None])


def _width(query: Tensor, key: Tensor | None, heads: int, kv_heads: int, shared: int) -> int:
    """The rows of a query head; ValueError where the weights do not hold such heads."""
    if heads < 1 or kv_heads < 1 or heads % kv_heads or shared < 0:
        raise ValueError(
            f"qk_clip_: heads must be a multiple of kv_heads, got {heads} and {kv_heads}, shared={shared}."
        )
    width, rest = divmod(query.shape[0], heads)
    expected = kv_heads * (width - shared) + shared
    if key is None:
        key = query.new_zeros(expected, 1)
    if query.ndim != 2 or key.ndim != 2 or rest or key.shape[0] not in (expected, expected - shared) or shared > width:
        raise ValueError(
            f"qk_clip_: query {tuple(query.shape)} and key {tuple(key.shape)} do not hold {heads} query and {kv_heads} "
            f"key heads of one width (shared={shared}); rows are outputs, as nn.Linear stores them."
        )
    return width


def _check_logits(max_logits: Tensor, heads: int, threshold: float | int) -> None:
    if tuple(max_logits.shape) != (heads,):
        raise ValueError(f"qk_clip_: max_logits must have shape ({heads},), got {tuple(max_logits.shape)}.")
    if not threshold > 0 or not bool(max_logits.isfinite().all()):
        raise ValueError(
            f"qk_clip_: needs a positive threshold and finite logits, got {threshold} and {max_logits.tolist()}."
        )
