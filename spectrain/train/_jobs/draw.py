"""The job of ``spectrain draw``: pictures from noise in one step."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spectrain import data, nn, objectives, optim
from spectrain.train._jobs.draw_config import DrawConfig
from spectrain.train._jobs.image_judge import Judge, Verdict
from spectrain.train._jobs.pictures import about_pictures, about_source, block_matrices, cost, default_patch
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import AbstractJob, Judged, Measured, first_bad_tensor

_ROWS, _COLUMNS = 4, 10


class DrawJob(AbstractJob[DrawConfig]):
    """Average velocities of a flow from noise to pictures, judged by a classifier trained here."""

    units = ("pictures",)
    model: nn.ImageTransformer

    def __init__(self, config: DrawConfig, folder: RunFolder, *, resuming: bool) -> None:
        self.config = config
        images = data.read_images(config.data or None)
        held_out = round(config.validation_fraction * len(images))
        if not 1 <= held_out < len(images):
            raise ValueError(f"{len(images)} pictures cannot be divided at --validation-fraction; give more.")
        order = torch.randperm(len(images), generator=data.streams.generator(config.seed, "split"))
        self.held_out, self.train = images.at(order[:held_out]), images.at(order[held_out:])
        self.fingerprint = images.fingerprint
        self.stream = data.streams.IndexStream(len(self.train), batch=config.batch_size, seed=config.seed)
        self.judge = Judge(self.train, self.held_out, seed=config.seed)

    def about_data(self) -> list[str]:
        """Pictures, and how well the judge knows them."""
        known = f"recognises {self.judge.accuracy:.1%} of the held-out pictures"
        return [
            about_source(self.train, self.held_out),
            about_pictures(self.train),
            f"judge: {known}; their Frechet distance is {self.judge.frechet:.2f}, larger for being few",
        ]

    def keep(self, folder: RunFolder) -> None:
        """Nothing: the model needs no dictionary."""

    def build_model(self, config: DrawConfig) -> nn.ImageTransformer:
        """The transformer of a full configuration, and its objective."""
        assert config.heads
        channels, size = self.train.pixels.shape[1:3]
        model = nn.ImageTransformer(
            size=size,
            channels=channels,
            patch=config.patch or default_patch(size),
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            classes=len(self.train.classes),
            generator=data.streams.generator(config.seed, "weights"),
        )
        self.flow = objectives.MeanFlow(
            model,
            objective=config.objective,
            law=config.law,
            instants=config.instants,
            guidance=config.guidance,
            null=len(self.train.classes),
        )
        return model

    def build(self, config: DrawConfig, *, device: torch.device) -> None:
        """Make the model, and its average beside it, on the same device."""
        super().build(config, device=device)
        self.average = optim.WeightAverage(self.model, half_lives=[config.average])

    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the mean loss over batch ``step`` in ``p.grad``; draws depend on ``step`` only.

        What is reported is the squared error a pixel: the weighted loss is nearly constant by construction.
        """
        index = self.stream.batch(step)
        drawn = self._draw(self.train.at(index), "draws", step)
        total = 0.0
        for part in drawn.split(self.config.micro_batch):
            with self.autocast:
                errors = self.flow.errors(part)
            (self.flow.weigh(errors) * (len(part.x) / len(index))).backward()
            total += errors.sum().item()
        error = total / self.train.pixels[0].numel() / len(index)
        return Measured(error, {"pictures": len(index)}, words=f"error {error:.4f}")

    def _draw(self, images: data.images.Images, *keys: int | str) -> objectives.Drawn:
        draw = data.streams.generator(self.config.seed, *keys)
        return self.flow.draw(images.pixels.to(self.device), images.labels.to(self.device), generator=draw)

    def after_step(self, lr_factor: float) -> Mapping[str, object]:
        """Average the weights: the half-life grows with the run, so that its length need not be known."""
        taken = self.average.updates + 1
        self.average.update(math.log1p(1 / taken))
        return {}

    def averaged(self) -> dict[str, Tensor] | None:
        """The weights that drawings are made and judged with."""
        return self.average.averaged() if self.average.updates else None

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the averaged weights back."""
        self.average.load_state_dict(state)

    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is not finite on batch ``step``."""
        drawn = self._draw(self.train.at(self.stream.batch(step)), "draws", step)

        def forward() -> None:
            with self.autocast:
                self.model(drawn.x, drawn.r, drawn.t)

        return first_bad_tensor(self.model, forward)

    def drawings(self, labels: Tensor, *keys: int | str, steps: int) -> Tensor:
        """Drawings of ``labels`` by the averaged weights, from noise that depends on seed and keys only."""
        shape = (len(labels), *self.train.pixels.shape[1:])
        noise = torch.randn(shape, generator=data.streams.generator(self.config.seed, *keys))
        parts = zip(noise.split(500), labels.split(500), strict=True)
        sampled = [self.flow.sample(x.to(self.device), y.to(self.device), steps=steps) for x, y in parts]
        return torch.cat(sampled).float().cpu()

    def validate(self, *, whole: bool) -> Judged:
        """Squared error a pixel on held-out pictures; what the judge says of drawings in one step and in many."""
        count = self.config.eval_pictures * (4 if whole else 1)
        labels = torch.arange(count) % len(self.train.classes)
        with torch.no_grad(), self._with_average():
            errors = self.flow.errors(self._draw(self.held_out, "held out"))
            error = errors.mean().item() / self.train.pixels[0].numel()
            one, many = (
                self.judge(self.drawings(labels, "judged", steps=steps), labels)
                for steps in (1, self.config.many_steps)
            )
        figures = {
            f"{name}_{key}": value
            for name, v in (("one_step", one), ("many_step", many))
            for key, value in vars(v).items()
        }
        return Judged(error, {"pictures": count}, figures, f"error {error:.4f}; {self._words(one, many)}")

    def _words(self, one: Verdict, many: Verdict) -> str:
        return (
            f"in one step {one.accuracy:.1%} recognised, Frechet {one.frechet:.2f}; in {self.config.many_steps} "
            f"{many.accuracy:.1%}, {many.frechet:.2f}"
        )

    def _with_average(self) -> Any:
        return self.average.applied() if self.average.updates else torch.no_grad()

    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Record a sheet of drawings in one step, and one from the same noise in many."""
        labels = torch.arange(_ROWS * _COLUMNS) % len(self.train.classes)
        with torch.no_grad(), self._with_average():
            for steps in (1, self.config.many_steps):
                sheet = self.drawings(labels, "sheet", steps=steps)
                folder.record("pictures", {"step": step, "steps": steps, "columns": _COLUMNS, **pack(sheet)})

    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """The figures of the last validation, beside the judge's own on held-out pictures."""
        row: dict[str, object] = {
            "validation_loss": judged.loss,
            **judged.figures,
            "judge_accuracy": self.judge.accuracy,
            "judge_frechet": self.judge.frechet,
            "epochs": self.stream.epoch(steps),
        }
        ratio = judged.figures["one_step_frechet"] / max(judged.figures["many_step_frechet"], 1e-12)
        novelty = judged.figures["one_step_novelty"]
        return row, [
            f"Frechet distance in one step: {ratio:.2f} times that in {self.config.many_steps}",
            f"nearest training picture: {novelty:.2f} times as far as from held-out pictures (near 0: copies)",
        ]

    def matrices(self) -> set[torch.nn.Parameter]:
        """The weights of the linear layers inside the blocks."""
        return block_matrices(self.model)

    def watch_list(self) -> list[str]:
        """The matrices of the first and the last block."""
        ends = ("blocks.0.", f"blocks.{self.config.depth - 1}.")
        return [n for n, p in self.model.named_parameters() if n.startswith(ends) and p.dim() == 2]

    def cost(self) -> str:
        """Floating-point operations of forward and backward."""
        return cost(self.model)


def pack(sheet: Tensor) -> dict[str, object]:
    """Pictures in [-1, 1] as bytes in base64, and their shape: ``(count, channels, height, width)``."""
    levels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return {"shape": list(levels.shape), "pixels": base64.b64encode(levels.numpy().tobytes()).decode("ascii")}
