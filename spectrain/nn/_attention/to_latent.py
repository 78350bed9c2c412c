"""Grouped-query attention as latent attention: the same function, or the nearest with a smaller cache."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain import lowrank
from spectrain.nn._attention.attention import Attention


class Latent(NamedTuple):
    """A latent attention block, and how far its latents are from what they stand for.

    ``error`` is the Frobenius norm of what the unrotated keys and the values lose, relative to theirs: over the
    ``inputs`` given, else over inputs of equal variance in all directions. 0 where nothing was cut.
    """

    attention: Attention
    error: float


@torch.no_grad()
def to_latent(
    block: Attention, *, latent: int | None = None, inputs: Float[Tensor, "tokens width"] | None = None
) -> Latent:
    """The latent attention that computes what ``block``, with ``kv_heads`` keys and values, computes.

    Rotated coordinates of all key heads become one rotary key of ``kv_heads`` parts, each with all the frequencies;
    a query has its own in the part of its key head and zeros elsewhere. Unrotated coordinates of keys and the values
    are linear in the stream, W x, and become the latent: W itself where its rows are no more than ``width``, so that
    the cache is as large as before and the result the same to rounding. A smaller ``latent`` keeps the leading left
    singular vectors U of W, or of W X with ``inputs`` X: keys and values become U U^T W x, the nearest of that rank.

    Raises ``ValueError`` for a block whose keys are normalised (a norm of keys is not linear), that has biases, whose
    values are rotated, that is latent already, and for a ``latent`` out of range.

    Cost: one singular value decomposition.

    Source: that GQA is a special case of MLA, article 10091; Meng et al., TransMLA, arXiv 2502.07864.

    >>> block = Attention(32, heads=4, kv_heads=2, head_dim=8, rotary_dim=4, qk_norm=False)
    >>> x = torch.randn(1, 5, 32)
    >>> same = to_latent(block)
    >>> torch.testing.assert_close(same.attention(x), block(x))
    >>> same.error, same.attention.shape.cache_numbers == block.shape.cache_numbers
    (0.0, True)
    """
    s = block.shape
    if s.kind.no_latent:
        raise ValueError(f"to_latent: {s.kind.no_latent}")
    if block.qk_norm:
        raise ValueError("to_latent: keys are normalised, which no linear map does; train with qk_norm=False.")
    if block.bias != "none":
        raise ValueError("to_latent: maps with biases are not linear, as a latent's are; train with bias='none'.")
    maps = _content_and_values(block)
    rows, width = maps.shape
    most = min(rows, width)
    if latent is not None and not 1 <= latent <= most:
        raise ValueError(f"to_latent: latent must be from 1 to {most}, got {latent}.")
    up, error = _leading(maps, most if latent is None else latent, inputs)
    new = Attention(
        width,
        heads=s.heads,
        head_dim=s.content_dim + s.kv_heads * s.rotary_dim,
        value_dim=s.value_dim,
        rotary_dim=s.kv_heads * s.rotary_dim,
        latent=up.shape[1],
        query_rank=s.query_rank,
        output_rank=s.output_rank,
        latent_norm=isinstance(getattr(block, "query_norm", None), nn.RMSNorm),
        norm_eps=block.norm_eps,
        window=block.window,
        log_n=block.log_n,
        log_n_learned=block.log_n_gain is not None,
        rotary_base=block.rotary.base,
        rotary_parts=s.kv_heads,
        rotary_scaling=block.rotary.scaling,
        scale=block.scale,
    ).to(maps)
    new.latent_norm = nn.Identity()
    _copy(block, new, maps, up)
    return Latent(new, error)


def _content_and_values(block: Attention) -> Tensor:
    """Rows that make the unrotated keys and the values of one key head after the other."""
    s = block.shape
    content = block.key.weight.unflatten(0, (s.kv_heads, s.head_dim))[:, : s.content_dim]
    values = [block.value.weight.unflatten(0, (s.kv_heads, s.extra_dim))] if s.extra_dim else []
    if s.share == "content":
        values = [content, *values]
    return torch.cat((content, *values), dim=1).flatten(0, 1)


def _leading(maps: Tensor, rank: int, inputs: Tensor | None) -> tuple[Tensor, float]:
    """Orthonormal columns U with U U^T W nearest to W on the inputs, and the relative error of it."""
    if rank == len(maps):
        return torch.eye(rank, dtype=maps.dtype, device=maps.device), 0.0
    seen = maps.double() if inputs is None else maps.double() @ inputs.double().mT
    if rank > min(seen.shape):
        raise ValueError(f"to_latent: {seen.shape[1]} inputs cannot tell {rank} directions; give more of them.")
    found = lowrank.svd(seen, rank=rank, method="exact")
    cut = rank < min(maps.shape)
    return found.U.to(maps.dtype), float(found.error / torch.linalg.matrix_norm(seen)) if cut else 0.0


def _copy(block: Attention, new: Attention, maps: Tensor, up: Tensor) -> None:
    s, old = new.shape, block.shape
    group = old.heads // old.kv_heads
    query = block.query.weight.unflatten(0, (old.kv_heads, group, old.head_dim))
    content, rotated = query.split((old.content_dim, old.rotary_dim), dim=2)
    slots = torch.eye(old.kv_heads, dtype=query.dtype, device=query.device)  # a query's own part, zeros elsewhere
    placed = torch.einsum("gj,ghrw->ghjrw", slots, rotated).flatten(2, 3)
    new.query.weight.copy_(torch.cat((content, placed), dim=2).flatten(0, 2))
    if old.query_rank is not None:
        new.query_down.load_state_dict(block.query_down.state_dict())
        new.query_norm.load_state_dict(block.query_norm.state_dict())
    new.latent.weight.copy_(up.mT @ maps)
    if old.rotary_dim:
        key = block.key.weight.unflatten(0, (old.kv_heads, old.head_dim))
        new.key_rotary.weight.copy_(key[:, old.content_dim :].flatten(0, 1))
    heads = up.unflatten(0, (old.kv_heads, -1)).repeat_interleave(group, dim=0)
    if s.content_dim:
        new.key.weight.copy_(heads[:, : s.content_dim].flatten(0, 1))
    new.value.weight.copy_(heads[:, s.content_dim :].flatten(0, 1))
    if old.output_rank is not None:
        new.output_down.weight.copy_(block.output_down.weight)
    new.output.weight.copy_(block.output.weight)
    if block.log_n_gain is not None and new.log_n_gain is not None:
        new.log_n_gain.copy_(block.log_n_gain)
