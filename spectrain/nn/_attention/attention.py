"""Causal attention, from many heads to one latent, in every form that training and decoding need."""

import math
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain.nn._attention import kinds
from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.kind import Kind, normalise_wide, split_heads
from spectrain.nn._attention.peak import Peak
from spectrain.nn._attention.rotary import Rotary, Turns
from spectrain.nn._attention.scaling import Scaling
from spectrain.nn._attention.shape import Share, attention_shape
from spectrain.nn._attention.turned import normalise_and_turn
from spectrain.nn._attention.visibility import Visibility
from spectrain.nn._autocast import narrowed
from spectrain.nn._capture.tap import Tap
from spectrain.nn._linear import Linear
from spectrain.nn._numbers import check_not_negative, check_positive, check_sizes
from spectrain.nn._rms_norm import RMSNorm

QKNorm: TypeAlias = bool | Literal["gains", "whole"]
Bias: TypeAlias = Literal["none", "inputs", "all"]
BIASES = get_args(Bias)


class Attention(Peak):
    """Causal self-attention: MHA, MQA, GQA, shared keys and values, or a latent (MLA).

    ========================= ================================================== ===========================
    arguments                 keys and values                                    kept for a token
    ========================= ================================================== ===========================
    ``kv_heads=heads`` (MHA)  one of each a head                                 2 heads head_dim
    ``kv_heads=g`` (GQA, MQA) g, each for heads / g queries                      2 g head_dim
    ``share="content"`` (S1)  unrotated coordinates are key and value            g (head_dim + value_dim - content)
    ``share="all"`` (S2)      the key is the value; outputs are turned back      g head_dim
    ``latent=r`` (MLA)        maps of a latent of r numbers that all heads share r + rotary_dim
    ========================= ================================================== ===========================

    ``head_dim`` coordinates of queries and keys, the last ``rotary_dim`` of them rotated by position; ``value_dim`` of
    values. Defaults: ``width / heads``, all rotated (a quarter with ``share``); with ``latent``, ``width / heads`` and
    half as many rotated ones beside them, whose key all heads share. ``query_rank`` makes queries through so many
    numbers, normalised, and ``output_rank`` writes through so many, as they are (article 10907, part VI). ``qk_norm``
    (default: on, but for a latent, where it could not be absorbed) divides queries and keys by their rms, so that
    logits stay bounded by ``sqrt(head_dim)``; ``latent_norm`` normalises latents. ``norm_eps`` is added to mean
    squares; default: the dtype's rounding, and 1e-6 for latents, as published. ``qk_norm="gains"`` also multiplies by
    learned gains, the same for each head (Qwen 3); ``"whole"`` normalises all heads together, by gains of their own
    (OLMo 2). ``bias`` adds biases to the maps of queries, keys and values (``"inputs"``), and to the output
    (``"all"``). ``rotary_scaling`` changes the frequencies of positions (``nn.attention.Llama3Scaling`` and others);
    where it has a magnitude, logits are multiplied by its square.

    ``window`` lets a query see so many keys, its own included. ``sinks`` beside it keeps the first tokens of a document
    visible, from no further than where they stand in a cache of sinks and window, so that text may go on for ever.
    ``log_n`` is the length of training: queries are multiplied by ``log n / log log_n``, n the number of keys that the
    query *sees*, so that attention is as focused at any length; ``log_n_learned`` adds a factor a head, which starts at
    1.

    Shapes: ``(batch, length, width)`` in and out. Cost: ``2 length^2 heads (head_dim + value_dim)`` besides the maps;
    for text beyond sinks and window ``rotary_dim`` more.

    Raises ``ValueError`` for sizes that do not fit together and for numbers that cannot be (NaN, a base of -1).

    Sources: articles 10091, 10907, 11111 (MLA), 8823, 9034 (log n) of kexue.fm; DeepSeek-V2, arXiv 2405.04434;
    StreamingLLM, arXiv 2309.17453 (sinks).

    >>> block = Attention(16, heads=4, latent=8)
    >>> x = torch.randn(1, 6, 16)
    >>> y, cache = block(x), block.empty_cache()
    >>> parts = [block(part, cache=cache) for part in x.split(2, dim=1)]    # the same, in pieces
    >>> torch.testing.assert_close(torch.cat(parts, dim=1), y)
    >>> block.shape.cache_numbers, block.shape.expanded_numbers
    (10, 40)
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    latent: nn.Linear
    latent_norm: nn.Module
    key_rotary: nn.Linear

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        rotary_dim: int | None = None,
        latent: int | None = None,
        query_rank: int | None = None,
        output_rank: int | None = None,
        share: Share = "none",
        qk_norm: QKNorm | None = None,
        latent_norm: bool = True,
        norm_eps: float | None = None,
        window: int | None = None,
        sinks: int | None = None,
        log_n: int | None = None,
        log_n_learned: bool = False,
        rotary_base: float = 1e4,
        rotary_parts: int = 1,
        rotary_scaling: Scaling | None = None,
        bias: Bias = "none",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes("Attention", width=width, heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=value_dim)
        check_sizes("Attention", latent=latent, query_rank=query_rank, output_rank=output_rank, log_n=log_n)
        check_sizes("Attention", window=window, sinks=sinks)  # a window has the query's own key
        check_positive("Attention", rotary_base=rotary_base, scale=scale)
        check_not_negative("Attention", norm_eps=norm_eps)
        self.shape = attention_shape(
            width,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            value_dim=value_dim,
            rotary_dim=rotary_dim,
            query_rank=query_rank,
            output_rank=output_rank,
            kind=_kind(share=share, latent=latent, sinks=sinks),
        )
        self.kind.check(self.shape, window=window)
        self.qk_norm = self.kind.normalises_keys if qk_norm is None else qk_norm
        if self.qk_norm and not self.kind.normalises_keys:
            raise ValueError("Attention: qk_norm=True cannot be absorbed into a latent; leave it out.")
        if log_n is not None and log_n < 2:
            raise ValueError(f"Attention: log_n is the length of training and must be at least 2, got {log_n}.")
        if log_n_learned and log_n is None:
            raise ValueError("Attention: log_n_learned needs log_n, the length of training, to start from.")
        self._check_choices(bias, rotary_scaling)
        self.window, self.log_n, self.bias = window, log_n, bias
        magnitude = 1.0 if rotary_scaling is None else rotary_scaling.magnitude
        self.scale = self.shape.head_dim**-0.5 * magnitude**2 if scale is None else scale
        self.log_n_gain = nn.Parameter(torch.ones(heads)) if log_n_learned else None
        self.rotary = Rotary(self.shape.rotary_dim, base=rotary_base, parts=rotary_parts, scaling=rotary_scaling)
        self.norm_eps = norm_eps
        self._make_maps(width, latent_norm=latent_norm)
        self.queries, self.keys, self.maps = Tap(), Tap(), Tap(costly=True)
        self.register_buffer("peak", torch.full((heads,), -torch.inf), persistent=False)

    @property
    def kind(self) -> Kind:
        """Where keys and values come from, and which of them a query sees."""
        return self.shape.kind

    @property
    def largest_possible_logit(self) -> float:
        """What no scaled logit exceeds, whatever the weights: queries and keys of one length each; inf if unbounded."""
        bounded = self.qk_norm is True and self.log_n is None
        return self.scale * self.shape.head_dim if bounded else math.inf

    def _make_maps(self, width: int, *, latent_norm: bool) -> None:
        s, eps = self.shape, 1e-6 if self.norm_eps is None else self.norm_eps

        def norm(size: int) -> nn.Module:
            return RMSNorm(size, eps=eps) if latent_norm else nn.Identity()

        if s.query_rank is not None:
            self.query_down = Linear(width, s.query_rank, bias=False)
            self.query_norm = norm(s.query_rank)
        inputs = self.bias != "none"
        self.query = Linear(s.query_rank or width, s.heads * s.head_dim, bias=inputs)
        for name, module in self.kind.maps(s, width, norm=norm, bias=inputs).items():
            self.add_module(name, module)
        if s.output_rank is not None:
            self.output_down = Linear(s.heads * s.value_dim, s.output_rank, bias=False)
        self.output = Linear(s.output_rank or s.heads * s.value_dim, width, bias=self.bias == "all")
        self.query_gains: nn.RMSNorm | None = None
        self.key_gains: nn.RMSNorm | None = None
        if isinstance(self.qk_norm, str):
            wide = self.qk_norm == "whole"
            self.query_gains = RMSNorm(s.head_dim * (s.heads if wide else 1), eps=self.norm_eps)
            self.key_gains = RMSNorm(s.head_dim * (s.kv_heads if wide else 1), eps=self.norm_eps)

    def _check_choices(self, bias: str, scaling: Scaling | None) -> None:
        for name, given, known in (("bias", bias, BIASES), ("qk_norm", self.qk_norm, (True, False, "gains", "whole"))):
            if given not in known:
                raise ValueError(f"Attention: {name} must be one of {', '.join(map(str, known))}, got {given!r}.")
        if bias != "none" and self.shape.latent is not None:
            raise ValueError(f"Attention: bias={bias!r} cannot be absorbed into a latent; leave it out.")
        if scaling is not None and scaling.magnitude != 1 and self.shape.content_dim:
            raise ValueError(
                f"Attention: rotary_scaling with magnitude {scaling.magnitude:g} multiplies rotated coordinates, and "
                f"{self.shape.content_dim} of {self.shape.head_dim} are not rotated; give a magnitude of 1."
            )

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights: normal of standard deviation ``1 / sqrt(fan_in)``; ``output``, biases zero, gains one."""
        for name, module in self.named_children():
            if isinstance(module, nn.Linear):
                std = 0.0 if name == "output" else module.in_features**-0.5
                nn.init.normal_(module.weight, std=std, generator=generator) if std else nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
        if self.log_n_gain is not None:
            nn.init.ones_(self.log_n_gain)
        self.peak.fill_(-torch.inf)

    def empty_cache(self) -> Cache:
        """A cache of no tokens, to be handed to :meth:`forward`, which fills it."""
        return self.kind.empty_cache(self.shape)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        *,
        cache: Cache | None = None,
        documents: Int[Tensor, "batch length"] | None = None,
        absorbed: bool | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Attend; with a cache, ``x`` continues the tokens in it and is added to it.

        ``documents`` numbers the document of each token: tokens see their own only, and padding is a document like any
        other. ``absorbed`` chooses, for a latent, whether queries go to the latents or latents become keys and values;
        None takes what costs less (:meth:`AttentionShape.absorbing_pays`).
        """
        if absorbed and self.shape.latent is None:
            raise ValueError(
                "Attention: absorbed=True needs a latent; this block keeps its keys and values as they are."
            )
        x = narrowed(x)
        turns = self.rotary.turns(0 if cache is None else cache.seen, x.shape[1], device=x.device)
        q, kept = self.kind.ask_and_keep(self, x, turns)
        kept, visible = self.kind.see(self, kept, cache, documents)
        q = self.queries(self._scale_log_n(q, visible))
        heads = self.kind.attend(self, q, kept, visible, turns=turns, absorbed=absorbed)
        written = heads.transpose(1, 2).flatten(-2)
        return cast(Tensor, self.output(written if self.shape.output_rank is None else self.output_down(written)))

    def clip_arguments(self) -> dict[str, Any]:
        """What ``optim.qk_clip_`` takes of this block, besides the largest logits and the threshold.

        Queries always; keys where they are of a head or a group and nothing else. With a latent the rotated key, which
        all heads share, stays, and with ``share`` every key does, for it is a value too: there the query takes all of
        the factor. ``ValueError`` with ``qk_norm``, which undoes what is done to weights and bounds logits itself, and
        with biases, which no weight shrinks.
        """
        if isinstance(self.qk_norm, str):
            raise ValueError(
                f"Attention: with qk_norm={self.qk_norm!r} logits follow from query_gains and key_gains, and no weight "
                "changes them; make those smaller."
            )
        if self.bias != "none":
            raise ValueError(
                f"Attention: with bias={self.bias!r} weights are a part of queries and keys; call qk_clip_ with "
                "the weights, and with the biases as one column."
            )
        if self.qk_norm:
            bound = self.scale * self.shape.head_dim
            raise ValueError(
                f"Attention: with qk_norm=True queries and keys are normalised, so that no weight changes a logit; "
                f"they are at most {bound:.3g} as they are. Make the block with qk_norm=False to clip."
            )
        s, key = self.shape, self.kind.clipped(self)
        shared = s.rotary_dim if s.latent is not None else 0
        weights = {"query": self.query.weight, "key": None if key is None else key.weight}
        return {**weights, "heads": s.heads, "kv_heads": s.kv_heads, "shared": shared}

    def head_counts(self) -> dict[str, int]:
        """How many heads lie side by side in the rows of each map that makes queries, keys or values, by its name.

        >>> Attention(16, heads=4, kv_heads=2).head_counts()
        {'query': 4, 'key': 2, 'value': 2}
        """
        kept = [name for name in ("key", "value") if name in self._modules]
        return {"query": self.shape.heads, **dict.fromkeys(kept, self.shape.kv_heads)}

    def ask(self, x: Tensor) -> Tensor:
        """Queries as their map makes them, ``(batch, length, heads head_dim)``."""
        if self.shape.query_rank is not None:
            x = normalise_wide(self.query_norm, self.query_down(x))
        return cast(Tensor, self.query(x))

    def place(self, x: Tensor, heads: int, gains: nn.Module | None, turns: Turns) -> Tensor:
        """Queries or keys in heads, normalised, and rotated by their positions."""
        if self.qk_norm is True and self.rotary.dim == self.shape.head_dim and self.rotary.parts == 1:
            return normalise_and_turn(split_heads(x, heads), turns, eps=self.norm_eps)
        normalised = self.normalise(x, heads, gains)
        return self.rotary.turn(normalised, turns, fresh=gains is None and self.qk_norm is True)

    def normalise(self, x: Tensor, heads: int, gains: nn.Module | None) -> Tensor:
        """Queries or keys in heads, divided by their rms where ``qk_norm`` says so, and multiplied by their gains."""
        if gains is not None and self.qk_norm == "whole":
            return split_heads(normalise_wide(gains, x), heads)
        x = split_heads(x, heads)
        if gains is not None:
            return normalise_wide(gains, x)
        return F.rms_norm(x, x.shape[-1:], eps=self.norm_eps) if self.qk_norm else x

    def _scale_log_n(self, q: Tensor, visible: Visibility) -> Tensor:
        if self.log_n is None:
            return q
        # torch takes the log of integers in its default dtype, which is too narrow for queries in float64.
        counts = visible.counts().to(torch.promote_types(q.dtype, torch.float32))
        factor = counts.log().unsqueeze(-1) / math.log(self.log_n)
        if self.log_n_gain is not None:
            factor = factor * self.log_n_gain.view(-1, 1, 1)
        return q * factor.to(q.dtype)

    def extra_repr(self) -> str:
        """The sizes, and what the cache holds for a token."""
        s = self.shape
        sizes = f"heads={s.heads}, kv_heads={s.kv_heads}, head_dim={s.head_dim}, rotary_dim={s.rotary_dim}"
        return f"{sizes}, cache={s.cache_numbers:,} numbers a token ({s.expanded_numbers:,} if expanded)"


def _kind(**sizes: object) -> Kind:
    """The kind that these arguments ask for; ``ValueError`` where they ask for several, or for none there is."""
    if sizes["share"] not in get_args(Share):
        raise ValueError(f"Attention: share must be one of {', '.join(get_args(Share))}, got {sizes['share']!r}.")
    all_kinds = dict.fromkeys(kinds.choice(name).kind for name in kinds.NAMES)
    found = [asked for each in all_kinds if (asked := each.from_sizes(sizes)) is not None]
    if len(found) != 1:
        given = ", ".join(f"{name}={size!r}" for name, size in sizes.items() if size not in (None, "none"))
        raise ValueError(f"Attention: each of {given} asks for keys and values of its own kind; give one, not both.")
    return found[0]
