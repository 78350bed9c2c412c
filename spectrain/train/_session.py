"""A run in memory: model, optimizer, text and counters, built from a configuration or a checkpoint."""

import math
import time
from dataclasses import dataclass, field

import torch

from spectrain import approx, data, nn, optim
from spectrain.train import _checkpoint
from spectrain.train._folder import RunFolder
from spectrain.train._horizon import by_clock, learning_rate_factor
from spectrain.train._text import Text
from spectrain.train.config import TrainConfig


@dataclass
class Counters:
    """How far a run has come; stands in every checkpoint."""

    step: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    optimizer_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)


@dataclass
class Session:
    """All that a run consists of between two steps."""

    config: TrainConfig
    folder: RunFolder
    text: Text
    model: nn.LanguageModel
    optimizer: torch.optim.Optimizer
    stream: data.TokenStream
    device: torch.device
    counters: Counters = field(default_factory=Counters)
    started: float = field(default_factory=time.perf_counter)

    @property
    def autocast(self) -> torch.autocast:
        """The precision of the model's products, as the configuration recorded it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.autocast == "bfloat16")

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None while a clock has still to tell."""
        return self.config.horizon

    @property
    def seconds(self) -> float:
        """Seconds spent so far, those before a resume included."""
        return self.counters.seconds + time.perf_counter() - self.started

    def set_learning_rate(self) -> float:
        """Put this step's learning rate into the optimizer and return it."""
        assert self.config.lr is not None
        factor = learning_rate_factor(
            self.counters.step,
            warmup=self.config.warmup,
            steps=self.steps,
            clock=by_clock(self.config),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        return self.config.lr * factor

    def clip_gradients(self) -> float:
        """Clip the gradients on AdamW to the global norm of ``--clip``; return the norm of all gradients.

        Muon's are left alone: its update has no scale that clipping could shrink.
        """
        limit = self.config.clip or math.inf
        if isinstance(self.optimizer, optim.Muon):
            return optim.clip_grad_norm_(self.optimizer, limit).total.item()
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()

    def save(self) -> _checkpoint.Checkpoint:
        """Write a checkpoint of this moment.

        Raises ``FloatingPointError`` naming the first weight that is not finite: nothing worth keeping.
        """
        for name, p in self.model.named_parameters():
            if not p.isfinite().all():
                raise FloatingPointError(f"weight {name} is not finite after step {self.counters.step}")
        counters = {**vars(self.counters), "seconds": self.seconds}
        state = {
            "optimizer": self.optimizer.state_dict(),
            "counters": counters,
            "torch_rng": torch.get_rng_state(),
            "sizes": self.folder.sizes(),
        }
        return _checkpoint.save(
            self.folder.checkpoints, self.model, state, step=self.counters.step, keep=self.config.keep_last
        )

    def restore(self, checkpoint: _checkpoint.Checkpoint) -> None:
        """Go back to the moment of a checkpoint, rows of metrics included."""
        state = _checkpoint.load(checkpoint, self.model)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.counters = Counters(**state["counters"])
        self.folder.cut(state["sizes"])
        self.started = time.perf_counter()


def build(config: TrainConfig, folder: RunFolder, text: Text) -> Session:
    """Model, optimizer and batches of a full configuration (nothing left to measure)."""
    device = torch.device(choose_device(config.device))
    model = build_model(config, vocabulary=text.tokenizer.vocabulary_size).to(device)
    return Session(
        config=config,
        folder=folder,
        text=text,
        model=model,
        optimizer=build_optimizer(config, model),
        stream=data.TokenStream(text.train, block=config.block, batch=config.batch_size, seed=config.seed),
        device=device,
    )


def build_model(config: TrainConfig, *, vocabulary: int) -> nn.LanguageModel:
    """The model of a full configuration, at its initial weights."""
    assert config.width
    assert config.heads
    return nn.LanguageModel(
        vocabulary=vocabulary,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        kv_heads=config.kv_heads,
        hidden=config.hidden,
        tied=config.tied,
        generator=data.generator(config.seed, "weights"),
    )


def build_optimizer(config: TrainConfig, model: nn.LanguageModel) -> torch.optim.Optimizer:
    """Muon with AdamW for the rest, or AdamW for all; only matrices of linear layers decay."""
    assert config.lr is not None
    betas = (config.beta1, config.beta2)
    if config.optimizer == "muon":
        return optim.Muon(
            model,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            scale=config.scale,
            adamw_betas=betas,
            adamw_weight_decay=0.0,
            schedule=muon_schedule(config),
            compute_dtype=config.muon_dtype,
        )
    decayed = {p for m in model.blocks.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if p in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)


def muon_schedule(config: TrainConfig) -> approx.Schedule:
    """The composition of quintics that Muon applies, the best one for the precision it works in."""
    return approx.sign_schedule(config.muon_lower, steps=config.muon_steps, dtype=config.muon_dtype)


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
