"""Everything that decides ``spectrain check``. Standard library only."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from spectrain.train._run.config import MOST_STEPS
from spectrain.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """One model at several widths: all sizes are in proportion, depth, batches and steps the same."""

    data: tuple[str, ...] = ()
    """Text to learn from: files, folders, globs. None: the Python standard library's source."""
    out_dir: str = ""
    """Folder for check.json and the report. Empty: a new one in runs/."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Widths to compare, each a multiple of 2 x --head-dim."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and batches; figures are means over them."""
    steps: int = 10
    """Optimizer steps at each width."""
    depth: int = 2
    """Blocks of the model."""
    head_dim: int = 32
    """Features of a head; the number of heads grows with the width."""
    hidden_ratio: float = 2.0
    """Width inside the feed-forward block over the width."""
    tokenizer: Literal["bpe", "bytes"] = "bytes"
    """Single bytes, or a byte-level BPE trained on the text."""
    vocabulary: int = 1024
    """Tokens of the BPE vocabulary."""
    block: int = 64
    """Tokens in a sequence."""
    batch_size: int = 8
    """Sequences in a step."""

    parametrisation: Literal["mup", "standard"] = "mup"
    """What is checked: optim.mup, or one learning rate for all parameters."""
    base_width: int = 256
    """The width at which every parameter gets --lr itself."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """Muon with AdamW for inputs and output, or AdamW for all."""
    scale: Literal["match_rms_adamw", "original", "spectral", "none"] = "match_rms_adamw"
    """Muon's factor on the learning rate."""
    lr: float | None = None
    """Learning rate. Default: a quarter of that of spectrain train at the base width; of lr-transfer, all of it."""
    weight_decay: float = 0.1
    """Decay of the hidden matrices."""
    device: str = "cpu"
    """Where to compute."""
    threads: int | None = None
    """CPU threads. Default: as many as torch takes."""

    share: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        """Refuse what cannot be compared, naming the flag and the cure."""
        if len(set(self.widths)) < 2:
            raise ValueError(f"--widths must be at least two different ones to compare, got {self.widths}.")
        odd = [width for width in self.widths if width < 1 or width % (2 * self.head_dim)]
        if odd:
            raise ValueError(
                f"--widths must be multiples of 2 x --head-dim = {2 * self.head_dim}, so that all sizes stay in "
                f"proportion (half as many heads of keys as of queries), got {odd}."
            )
        if not self.seeds or self.steps < 1:
            raise ValueError(f"--seeds and --steps must be at least one, got {self.seeds} and {self.steps}.")
        if self.steps > MOST_STEPS:
            raise ValueError(f"--steps must be at most {MOST_STEPS:,}, got {self.steps}.")
        for width in self.widths:
            for seed in self.seeds:
                self.member(width, seed)  # refuses all that no run could have, before the first one
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr must be positive and finite, got {self.lr}.")

    def member(self, width: int, seed: int, *, lr: float | None = None) -> TrainConfig:
        """The configuration of one width and seed."""
        heads = width // self.head_dim
        rate = self.lr if lr is None else lr
        one = TrainConfig(
            data=self.data,
            tokenizer=self.tokenizer,
            vocabulary=self.vocabulary,
            depth=self.depth,
            width=width,
            heads=heads,
            kv_heads=heads // 2,
            hidden=round(self.hidden_ratio * width),
            block=self.block,
            batch_size=self.batch_size,
            max_steps=self.steps,
            horizon=self.steps,
            warmup=min(10, self.steps // 4),
            seed=seed,
            optimizer=self.optimizer,
            scale=self.scale,
            lr=rate,
            weight_decay=self.weight_decay,
            parametrisation=self.parametrisation,
            base_width=self.base_width,
            autocast="off",
            muon_dtype="float32",
            device=self.device,
            threads=self.threads,
        )
        full, _ = one.derive()
        assert full.lr is not None
        return full if rate is not None else dataclasses.replace(full, lr=self.share * full.lr)


@dataclass(frozen=True, kw_only=True)
class TransferConfig(CheckConfig):
    """Sweep the learning rate at every width, and see whether the best one stays."""

    share: ClassVar[float] = 1.0
    rates: tuple[float, ...] = ()
    """Learning rates to try at each width, in factors of two. Default: five around that of spectrain train. Where the
    best is the first or the last, the sweep goes on beyond it."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and batches; the loss is the mean over them."""
    steps: int = 100
    """Optimizer steps of a run."""

    def __post_init__(self) -> None:
        """Refuse rates that are no rates."""
        super().__post_init__()
        if any(not 0 < rate < float("inf") for rate in self.rates):
            raise ValueError(f"--rates must be positive numbers, got {self.rates}.")
