"""Everything that decides a run, in one frozen dataclass. Imports the standard library only."""

import dataclasses
import difflib
import itertools
import json
import os
import typing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from spectrain.train import _atomic


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a language model on text and write a run folder.

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    data: tuple[str, ...] = ()
    """Text to learn from: files, folders, globs, .gz. None: the Python standard library's source."""
    out_dir: str = ""
    """The run folder. Empty: runs/<date>-<optimizer>-d<depth>."""
    resume: str = "never"
    """'auto': go on from the newest checkpoint in --out-dir, or start when there is none; 'never'."""
    seed: int = 0
    """Decides weights, batches and samples."""

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

    tokenizer: Literal["bpe", "bytes"] = "bpe"
    """Byte-level BPE trained on the training text, or single bytes."""
    vocabulary: int = 4096
    """Tokens of the BPE vocabulary."""
    block: int = 256
    """Tokens in a sequence."""
    batch_size: int = 16
    """Sequences in an optimizer step."""
    micro_batch_size: int | None = None
    """Sequences in memory at once; must divide --batch-size. Default: all of them."""
    validation_fraction: float = 0.05
    """Share of the text held out, by document."""

    max_steps: int | None = None
    """Stop after this many optimizer steps."""
    max_tokens: int | None = None
    """Stop after this many tokens."""
    max_minutes: float | None = None
    """Train for about this long: after 20 steps the number of steps is fixed, and recorded. Default 3.5
    where no --max-* is given."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the matrices of linear layers with AdamW for the rest, or AdamW for all."""
    lr: float | None = None
    """Peak learning rate. Default: follows depth and optimizer."""
    weight_decay: float = 0.1
    """Decoupled decay, of matrices only."""
    momentum: float = 0.95
    """Muon's momentum."""
    beta1: float = 0.9
    """AdamW's first beta."""
    beta2: float = 0.95
    """AdamW's second beta."""
    scale: Literal["match_rms_adamw", "original", "spectral", "none"] = "match_rms_adamw"
    """Muon's factor on the learning rate."""
    muon_steps: int = 5
    """Quintic steps of Muon's matrix sign; the polynomials are computed when the run starts."""
    muon_lower: float = 2e-3
    """Smallest singular value, relative to the largest, that those steps are designed for."""
    clip: float = 1.0
    """Largest global gradient norm for the parameters on AdamW; Muon's are left alone. 0: no clipping."""
    warmup: int = 20
    """Steps of linear warm-up; then linearly to zero."""

    eval_interval: int = 50
    """Steps between validations on the first --eval-tokens tokens; the last one reads all."""
    eval_tokens: int = 65_536
    """Tokens of a validation on the way."""
    save_interval: int = 100
    """Steps between checkpoints."""
    keep_last: int = 2
    """Checkpoints kept."""
    log_interval: int = 10
    """Steps between lines on a screen that is not a terminal."""
    spectrum_interval: int = 100
    """Steps between singular-value spectra of the first and last block; 0: none."""
    sample_tokens: int = 160
    """Tokens of a sample; 0: none."""

    device: str = "auto"
    """'auto' takes CUDA where there is one, else the CPU."""
    threads: int | None = None
    """CPU threads. Default: as many as torch takes."""
    autocast: Literal["auto", "bfloat16", "off"] = "auto"
    """Matrix products in bfloat16. 'auto' measures which is faster."""
    muon_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of Muon's iteration. 'auto' measures which is faster."""
    horizon: int | None = None
    """Steps of the schedule; set by the run, from --max-*."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        for name in _AT_LEAST_ONE:
            _require(getattr(self, name) is None or getattr(self, name) >= 1, self, name, "at least 1")
        for name in ("warmup", "weight_decay", "clip", "spectrum_interval", "sample_tokens", "seed"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        for name in ("momentum", "beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, self, name, "at least 0 and below 1")
        for name in ("lr", "max_minutes"):
            value = getattr(self, name)
            _require(value is None or 0 < value < float("inf"), self, name, "positive and finite")
        _require(0 < self.muon_lower < 1, self, "muon_lower", "between 0 and 1")
        for name, kind in typing.get_type_hints(TrainConfig).items():
            if typing.get_origin(kind) is Literal:
                _require(_fits(getattr(self, name), kind), self, name, f"one of {', '.join(typing.get_args(kind))}")
        most = 4 * (os.cpu_count() or 1)
        _require(self.threads is None or self.threads <= most, self, "threads", f"at most {most} on this machine")
        _require(0 < self.validation_fraction < 1, self, "validation_fraction", "between 0 and 1")
        _require(self.resume in ("auto", "never"), self, "resume", "'auto' or 'never'")
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"--micro-batch-size must divide --batch-size {self.batch_size}, got {self.micro_batch}; "
                f"try {max(d for d in range(1, self.micro_batch + 1) if self.batch_size % d == 0)}."
            )

    @property
    def micro_batch(self) -> int:
        """Sequences in memory at once."""
        return self.batch_size if self.micro_batch_size is None else self.micro_batch_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_size * self.block


def derive(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Fill in what follows from the dial, and say why: the full configuration and a line for each choice.

    >>> full, why = derive(TrainConfig(depth=6))
    >>> full.width, full.heads, full.kv_heads
    (384, 6, 3)
    """
    found: dict[str, object] = {}
    why: list[str] = []

    def choose(name: str, value: object, reason: str) -> None:
        if getattr(config, name) is None:
            found[name] = value
            why.append(f"{name} = {value}: {reason}")

    width = config.width or 64 * config.depth
    choose("width", width, f"64 x depth {config.depth}, so that depth and width grow together")
    heads = config.heads or max(1, width // 64)
    choose("heads", heads, "one for 64 features of width")
    kv_heads = heads // 2 if heads % 2 == 0 else heads
    choose(
        "kv_heads",
        kv_heads,
        "half of the heads: half the cache, hardly any loss" if heads % 2 == 0 else "heads is odd",
    )
    choose(
        "hidden",
        64 * -(-8 * width // 192),
        "8/3 x width, up to a multiple of 64: as many weights as a 4 x block without gate",
    )
    choose("lr", default_lr(config.optimizer, config.depth), _LR_REASON)
    if (config.max_steps, config.max_tokens, config.max_minutes, config.horizon) == (None,) * 4:
        choose("max_minutes", DEFAULT_MINUTES, "no --max-steps, --max-tokens or --max-minutes was given")
    return dataclasses.replace(config, **found), why  # type: ignore[arg-type]


_AT_LEAST_ONE = (
    *("depth", "width", "heads", "kv_heads", "hidden", "vocabulary", "block", "batch_size", "micro_batch_size"),
    *("max_steps", "max_tokens", "horizon", "muon_steps", "threads"),
    *("eval_interval", "eval_tokens", "save_interval", "keep_last", "log_interval"),
)
DEFAULT_MINUTES = 3.5
_BASE_LR = {"muon": 8e-3, "adamw": 4e-3}
_LR_REASON = "best of a sweep at depth 4 (benchmarks/tokens_to_loss.py); 1/depth, since width is 64 x depth"


def default_lr(optimizer: str, depth: int) -> float:
    """The peak learning rate that goes with a depth.

    >>> default_lr("muon", 4) == 2 * default_lr("muon", 8)
    True
    """
    return _BASE_LR[optimizer] * 4 / depth


def fresh_folder(config: TrainConfig) -> Path:
    """A run folder that does not exist yet, named by date, optimizer and depth."""
    stem = f"runs/{datetime.now():%Y-%m-%d_%H%M%S}-{config.optimizer}-d{config.depth}"
    names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
    return next(Path(name) for name in names if not Path(name).exists())


def fresh(recorded: TrainConfig) -> TrainConfig:
    """A run's configuration as the start of a new run: the same choices in another folder."""
    return dataclasses.replace(recorded, out_dir="", resume="never")


def write(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as flat JSON, whole or not at all."""
    _atomic.write_json(path, dataclasses.asdict(config))


def read(path: Path) -> TrainConfig:
    """The configuration in a ``config.json``.

    Raises ``ValueError`` for a file that is no such JSON, for an unknown key (with the nearest name)
    and for a value of the wrong type; ``FileNotFoundError`` where there is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a configuration: {error}. Give a run's config.json.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not a configuration. Give a run's config.json.")
    return from_values(values, source=str(path))


def resumed(recorded: TrainConfig, wanted: TrainConfig) -> TrainConfig:
    """The recorded configuration, for a run that goes on.

    A field of ``wanted`` that stands at its default asks for nothing. Raises ``ValueError`` naming the
    first other field that differs from what the run was started with: a resumed run replays its choices.
    """
    check_same(recorded, wanted, unless=TrainConfig())
    return dataclasses.replace(recorded, **{name: getattr(wanted, name) for name in _FREE})


_FREE = ("resume", "out_dir", "log_interval")
"""What may differ when a run goes on: it decides nothing that is learned or written."""


def check_same(recorded: TrainConfig, wanted: TrainConfig, *, unless: TrainConfig | None = None) -> None:
    """Refuse a configuration that differs from the recorded one, except where it equals ``unless``."""
    for field in dataclasses.fields(TrainConfig):
        asked, used = getattr(wanted, field.name), getattr(recorded, field.name)
        silent = unless is not None and asked == getattr(unless, field.name)
        if field.name not in _FREE and asked != used and not silent:
            raise ValueError(
                f"--{field.name.replace('_', '-')} {asked} differs from the run's {used}, and a resumed run keeps "
                "its configuration. Leave the flag out, or start a new run in another --out-dir."
            )


def from_values(values: dict[str, object], *, source: str) -> TrainConfig:
    """A configuration from plain values, checked by name and by type."""
    types = typing.get_type_hints(TrainConfig)
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(sorted(types))}."
            raise ValueError(f"{source}: unknown key {key!r}.{hint}")
        if not _fits(value, types[key]):
            raise ValueError(f"{source}: {key} must be {_spelled(types[key])}, got {value!r}.")
    return TrainConfig(**{key: _as(value, types[key]) for key, value in values.items()})  # type: ignore[arg-type]


def _as(value: object, kind: object) -> object:
    """JSON has lists for tuples and may write 1 for 1.0."""
    if isinstance(value, list):
        return tuple(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in (kind, *typing.get_args(kind)) else value  # type: ignore[arg-type]


def _fits(value: object, kind: object) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value in typing.get_args(kind)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    options = typing.get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)


def _spelled(kind: object) -> str:
    return str(kind).removeprefix("typing.") if typing.get_args(kind) else getattr(kind, "__name__", str(kind))


def _require(holds: bool, config: TrainConfig, name: str, wanted: str) -> None:
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} must be {wanted}, got {getattr(config, name)!r}.")
