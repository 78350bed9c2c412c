"""Everything that decides a run of ``spectrain train``, in one frozen dataclass. Standard library only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from spectrain.nn.internal import kinds
from spectrain.train._architecture import Architecture
from spectrain.train._experts import Experts
from spectrain.train._lora import LoRA
from spectrain.train._mesh.layout import Layout, sizes
from spectrain.train._run.config import DEFAULT_MINUTES, NO_LIMIT, Wish, fill
from spectrain.train._run.guarded import GuardedConfig
from spectrain.train._run.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    AttentionName = str
else:  # a type checker takes no computed Literal; the command line and the checks of values read this one
    AttentionName = Literal[kinds.NAMES]

MOST_WRITTEN = 1_000_000
"""Tokens of one continuation. More is asked for by going on from its end."""
SHARDED = ("muon", "normuon", "muoneq", "adamw")
"""Optimizers that know parameters in shards."""
OF_ONE_KIND = ("latent", "sinks")
"""Flags that belong to one kind of attention alone; a test compares them with what the kinds say of themselves."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Architecture, Experts, LoRA, GuardedConfig):
    """Train a language model on text and write a run folder.

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    job: ClassVar[str] = "train"
    added: ClassVar[Mapping[str, object]] = {
        **dict.fromkeys(("embedding_lr", "head_lr", "vector_lr"), 1.0),
        "final_lr": 0.0,
        "final_eval_tokens": "all",
    }

    data: tuple[str, ...] = ()
    """Text: files, folders, globs, JSON lines, Parquet, .gz, or a folder of prepared text (the verb prepare). None:
    the Python standard library's source."""
    data_weights: tuple[float, ...] = ()
    """Mix the --data in these proportions, one number for each, exactly and all the time. None: as much as there is."""
    text_field: str = "text"
    """Where JSON lines and Parquet have the text."""
    packing: Literal["none", "documents"] = "none"
    """'documents': rows of whole documents that do not see each other; 'none': the text as it runs, cut into rows."""

    init_from: str | None = None
    """Begin with the weights, the shape and the tokenizer of this finished run, or of a folder that transformers wrote
    (Llama, Mistral, Qwen 2, Qwen 3, OLMo 2). Default: weights are drawn."""
    depth: int = 4
    """The one dial: blocks of the model; width, heads and learning rate follow."""
    width: int | None = None
    """Features of the residual stream. Default: 64 * depth."""
    heads: int | None = None
    """Attention heads. Default: one for 64 features."""
    kv_heads: int | None = None
    """Heads of keys and values. Default: half of --heads where that divides, else all."""
    hidden: int | None = None
    """Width inside the feed-forward block. Default: 8/3 of --width, up to a multiple of 64."""
    tied: bool = False
    """Share the weights of embedding and head."""
    attention: AttentionName = "gqa"
    """Grouped, all or one of the key heads; a latent (mla); keys that are values in part (s1) or whole (s2); grouped,
    with a window and the first tokens (sinks)."""
    head_dim: int | None = None
    """Coordinates of a query and a key. Default: width / heads; half as many more with mla and s1, twice with s2."""
    rotary_dim: int | None = None
    """Those of them that positions rotate. Default: all; a third with mla, a quarter with s1 and s2."""
    latent: int | None = None
    """With --attention mla: numbers that keys and values are made from. Default: half of --width."""
    query_rank: int | None = None
    """Make queries through so many numbers. Default: straight from the stream."""
    output_rank: int | None = None
    """Write what the heads found through so many numbers. Default: straight to the stream."""
    window: int | None = None
    """Tokens that a token sees, its own included. Default: all before it; a quarter of --block with sinks."""
    sinks: int | None = None
    """With --attention sinks: first tokens of the row or document that every token sees. Default: 4."""
    log_n: Literal["off", "fixed", "learned"] = "off"
    """Multiply queries by log n / log --block, n the visible tokens; 'learned': and by a factor a head."""

    weight_decay: float = 0.3
    """Decoupled decay, of matrices only."""
    embedding_lr: float | None = None
    """The embedding's learning rate, as a multiple of --lr. Default: follows the optimizer; 1 with --init-from."""
    head_lr: float | None = None
    """The head's learning rate, as a multiple of --lr. Default: follows the optimizer; 1 with --init-from."""
    vector_lr: float | None = None
    """That of gains, as a multiple of --lr. Default: 1."""
    parametrisation: Literal["standard", "mup"] = "standard"
    """'mup': learning rates and decay by role and width, the same best rate at every width; see docs/mup.md."""
    base_width: int = 256
    """With --parametrisation mup: the width at which --lr is what every parameter gets. With another --scale than the
    default, AdamW's part gets what makes all scale modes one and the same at this width."""

    tokenizer: str = "bpe"
    """bpe: byte-level BPE trained on the training text; bytes: single bytes; else the tokenizer.json of somebody else,
    or the folder that has one, whose tokenizer_config.json says which token ends a text."""
    vocabulary: int = 4096
    """Tokens of the BPE vocabulary."""
    batch_size: int = 16
    """Sequences in an optimizer step."""
    micro_batch_size: int | None = None
    """Sequences in memory at once; must divide --batch-size. Default: all of them."""
    compile: bool = False
    """Compile loss and gradient by Inductor, once for each shape. Pays from a few hundred steps on."""
    validation_fraction: float = 0.05
    """Share of the text held out, by document."""
    max_tokens: int | None = None
    """Stop after this many tokens."""
    eval_interval: int = 50
    """Steps between validations on the first --eval-tokens held-out tokens."""
    eval_tokens: int = 65_536
    """Tokens of a validation on the way."""
    final_eval_tokens: int | str = 1_048_576
    """Tokens of the last validation, spread over the held-out text where that has more; 'all': every one."""
    sample_tokens: int = 160
    """Tokens of a sample; 0: none."""

    mesh: str | None = None
    """Under torchrun, replicas x shards of the model: 2x4 for 8 ranks. Default: all ranks are shards."""
    tensor_parallel: int = 1
    """Under torchrun, ranks that share each matrix by heads and by hidden features; a further dimension of --mesh."""
    rank_timeout: float = 600.0
    """Seconds after which a rank that does not answer counts as hanging, and all end."""
    recompute: bool = False
    """Compute each block again on the way back instead of keeping what is inside: less memory, a third more work."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        self.require(0 <= self.sample_tokens <= MOST_WRITTEN, "sample_tokens", f"from 0 to {MOST_WRITTEN:,}")
        self.require(0 < self.validation_fraction < 1, "validation_fraction", "between 0 and 1")
        final = self.final_eval_tokens
        good = final == "all" or (not isinstance(final, str) and 1 <= final <= 10**15)
        self.require(good, "final_eval_tokens", "a number from 1 on, or all")
        each = len(self.data_weights) in (0, len(self.data)) or len(self.data) == 1  # prepared text has several
        self.require(each, "data_weights", f"one number for each of the {len(self.data)} --data")
        self.require(all(0 < w < math.inf for w in self.data_weights), "data_weights", "positive and finite")
        self.require(not (self.compile and self.moe_experts), "compile", "left out with --moe-experts")
        self.require(not (self.tied and self.by_width), "tied", "left out with --parametrisation mup")
        for name in ("decay_estimate", "muon_per_head"):
            plain = self.parametrisation == "standard" or not getattr(self, name)
            self.require(plain, name, "left out with --parametrisation mup, whose rates go by role and whole matrices")
        for name in RATIOS:
            ratio = getattr(self, name)
            self.require(ratio is None or 0 < ratio < math.inf, name, "positive and finite")
            free = self.parametrisation == "standard" or ratio in (None, 1.0)
            self.require(free, name, "left out with --parametrisation mup, which decides it")
        self.require(not self.tied or self.head_lr in (None, 1.0), "head_lr", "left out with --tied (one matrix there)")
        self._check_attention()
        self._check_settings()
        self._check_mesh()

    def _check_settings(self) -> None:
        """Refuse settings of the model that do not go with others."""
        self.require(bool(self.tokenizer), "tokenizer", "bpe, bytes, or a file or folder")
        dense = not self.feed_forward_bias or self.moe_experts is None
        self.require(dense, "feed_forward_bias", "left out with --moe-experts")

    def _check_mesh(self) -> None:
        self.require(self.mesh is None or sizes(self.mesh) is not None, "mesh", "replicas x shards, as in 2x4")
        self.require(0 < self.rank_timeout < 1e7, "rank_timeout", "positive, in seconds")

    @property
    def wish(self) -> Wish:
        """Replicas, shards and ranks that share a matrix; how long they wait for each other."""
        return Wish(self.mesh, self.tensor_parallel, self.rank_timeout, self.expert_parallel)

    def check_ranks(self, stand: Layout) -> None:
        """Refuse what several ranks cannot divide."""
        super().check_ranks(stand)
        self.require(self.optimizer in SHARDED, "optimizer", f"one of {', '.join(SHARDED)} under torchrun")
        if stand.tensor > 1:
            self._check_tensor(stand.tensor)

    def _check_tensor(self, ranks: int) -> None:
        """Refuse to divide what does not come out even."""
        full, _ = self.derive()
        alike = full.attention in ("gqa", "mha") and full.query_rank is None and full.log_n != "learned"
        self.require(alike, "attention", "gqa or mha, without --query-rank and --log-n learned, with --tensor-parallel")
        self.require(full.output_rank is None, "output_rank", "left out with --tensor-parallel")
        own = full.optimizer != "adamw"
        self.require(own, "optimizer", "muon, normuon or muoneq with --tensor-parallel: torch's AdamW takes one mesh")
        self.require(full.moe_experts is None, "moe_experts", "left out with --tensor-parallel")
        full.check_shared()
        for name in ("heads", "kv_heads", "hidden"):
            size = getattr(full, name)
            if size % ranks:
                raise ValueError(
                    f"--tensor-parallel {ranks} does not divide --{name.replace('_', '-')} {size} evenly; choose sizes "
                    "that it divides."
                )

    def _check_attention(self) -> None:
        """Refuse sizes of another kind. A kind is loaded, and torch with it, only where one of its sizes is given."""
        if self.kv_heads is not None:
            fixed = kinds.choice(self.attention).kv_heads
            only = self.kv_heads if fixed is None else fixed(self.heads or 0)
            self.require(self.kv_heads == only, "kv_heads", f"left out with --attention {self.attention}")
        for name in OF_ONE_KIND:
            if getattr(self, name) is not None:
                owner = kinds.owner(name)
                self.require(self.attention == owner, name, f"left out without --attention {owner}")
        if self.qk_norm not in ("auto", "off") or self.clips_logits:
            self._check_logits(can=kinds.choice(self.attention).kind.normalises_keys)

    def _check_logits(self, *, can: bool) -> None:
        """Refuse norms that a kind cannot have, and what two guards would do to each other."""
        left = can or self.qk_norm in ("auto", "off")
        self.require(left, "qk_norm", f"left out with --attention {self.attention}")
        free = not self.clips_logits or self.qk_norm == "off" or not can
        self.require(free, "qk_clip", "left out, or inf, unless --qk-norm off: no weight changes a logit otherwise")
        whole = not self.clips_logits or self.bias == "none"
        self.require(whole, "qk_clip", f"left out, or inf, with --bias {self.bias}, which no weight shrinks")
        grows = self.clips_logits and self.heads != self.kv_heads  # a head's query makes up for a key it shares
        free = self.bound is None or self.kv_heads is None or not grows
        self.require(free, "bound", "left out with --qk-clip where heads share keys, whose queries it lets grow")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        own = ("depth", "width", "heads", "kv_heads", "hidden", "vocabulary", "block", "max_tokens", "eval_tokens")
        others = ("base_width", "tensor_parallel")
        attention = ("head_dim", "value_dim", "query_rank", "output_rank", "window", *OF_ONE_KIND)
        return (*own, *others, *attention, *super().at_least_one())

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_size * self.block

    @property
    def slug(self) -> str:
        """What the name of a new run folder says after the date."""
        return f"{self.optimizer}-d{self.depth}"

    def limits(self) -> list[int]:
        """Every limit on the number of steps that needs no clock."""
        by_tokens = [] if self.max_tokens is None else [max(1, self.max_tokens // self.tokens_per_step)]
        return super().limits() + by_tokens

    def derive(self) -> tuple["TrainConfig", list[str]]:
        """Fill in what follows from the dial, and say why: the full configuration and a line for each choice.

        >>> full, why = TrainConfig(depth=6).derive()
        >>> full.width, full.heads, full.kv_heads
        (384, 6, 3)
        """
        width = self.width or 64 * self.depth
        heads = self.heads or max(1, width // 64)
        kind = kinds.choice(self.attention)
        kv_heads, kv_reason = kind.key_heads(heads)
        return fill(
            self,
            ("width", width, f"64 x depth {self.depth}, so that depth and width grow together"),
            ("heads", heads, "one for 64 features of width"),
            ("kv_heads", kv_heads, kv_reason),
            *kind.defaults(width, heads, self.block),
            (
                "hidden",
                64 * -(-8 * width // 192),
                "8/3 x width, up to a multiple of 64: as many weights as a 4 x block without gate",
            ),
            ("lr", *self._default_lr()),
            *self._default_ratios(),
            ("final_lr", *self._default_final_lr()),
            *self._default_balance_rate(),
            *([("max_minutes", DEFAULT_MINUTES, NO_LIMIT)] if self.unlimited else []),
        )

    @property
    def by_width(self) -> bool:
        """Whether rates follow from widths (muP)."""
        return self.parametrisation == "mup"

    @property
    def scale_ratio(self) -> float:
        """The default scale mode's factor on a square matrix of the base width, over that of ``--scale``."""
        return 1.0 if self.scale == "match_rms_adamw" else 0.2 * math.sqrt(self.base_width)

    def _default_lr(self) -> tuple[float, str]:
        if self.by_width:
            lr = default_lr(self.optimizer, 4) * (self.scale_ratio if self.optimizer == "muon" else 1.0)
            return lr, "best of a sweep at width 256, which muP makes that of every width"
        return default_lr(self.optimizer, self.depth), _LR_REASON

    def _default_ratios(self) -> list[tuple[str, object, str]]:
        """Rates that are not those of the matrices; an empty field is 1, or of what does not move."""
        if self.by_width or self.tied or self.adapters or self.init_from:
            return []
        found = {name: default_ratio(self.optimizer, name) for name in RATIOS}
        return [(name, ratio, _RATIO_REASON) for name, ratio in found.items() if ratio != 1.0]

    def _default_final_lr(self) -> tuple[float, str]:
        if self.schedule in ("linear", "cosine", "wsd"):
            return 0.1, _RATIO_REASON
        return 0.0, f"--schedule {self.schedule} decides where it ends"

    def _default_balance_rate(self) -> list[tuple[str, object, str]]:
        if self.moe_experts is None or self.moe_balance not in ("sign", "rms"):
            return []
        limits = self.limits() + ([] if self.horizon is None else [self.horizon])
        rate = min(0.03, max(0.01, 6 / min(limits, default=300)))
        return [("moe_balance_rate", rate, "6 / steps, from 0.01 to 0.03: it reaches every score and keeps pace")]

    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """``(rows, inner, columns)`` of the model's typical product, and ``(batch, rows, columns)`` of Muon's."""
        assert self.width
        assert self.hidden
        return (self.micro_batch * self.block, self.width, self.hidden), (4 * self.depth, self.width, self.width)


EVERY_TOKEN = 10**15
"""As ``--eval-tokens``: what the last validation reads, which is all of the held-out text up to a bound."""
RATIOS = ("embedding_lr", "head_lr", "vector_lr")
"""Learning rates as multiples of ``--lr``."""
_DEFAULT_RATIOS = {
    "muon": {"embedding_lr": 32.0, "head_lr": 4.0},
    "adamw": {"embedding_lr": 16.0, "head_lr": 4.0},
}
"""By the one of muon and adamw that an optimizer is like."""
_RATIO_REASON = "best at depth 2, tuned in 15 runs, and seen to hold at depth 4 (benchmarks/train/defaults.py)"
_LR_REASON = "best of a sweep at depth 4 (benchmarks/train/tokens_to_loss.py); 1/depth, since width is 64 x depth"


def default_ratio(optimizer: str, name: str) -> float:
    """What a rate is as a multiple of that of the matrices.

    >>> default_ratio("muon", "vector_lr"), default_ratio("soap", "head_lr")
    (1.0, 4.0)
    """
    return _DEFAULT_RATIOS[OPTIMIZERS[optimizer].like].get(name, 1.0)


def default_lr(optimizer: str, depth: int) -> float:
    """The peak learning rate that goes with a depth.

    >>> default_lr("muon", 4) == 2 * default_lr("muon", 8)
    True
    """
    return OPTIMIZERS[optimizer].lr * 4 / depth
