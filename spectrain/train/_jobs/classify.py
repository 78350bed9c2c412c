"""The job of ``spectrain classify``: the classes of pictures, judged by those held out."""

import hashlib
import statistics
from collections import Counter

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain import data, nn, objectives
from spectrain._files.read import read_object
from spectrain._files.write import write_json
from spectrain.train._jobs.classify_config import ClassifyConfig
from spectrain.train._jobs.pictures import about_pictures, about_source, block_matrices, cost, default_patch
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import AbstractJob, Judged, Measured, first_bad_tensor

LEVEL = 0.95
_PART, _SHOWN = 500, 5
_CLASSES = "classes.json"


class PictureClassifier(torch.nn.Module):
    """``logits = W (x + u(x)) + b``: a transformer u over patches changes the picture, a linear map W reads it.

    Both begin at zero, so that all classes are alike and the first steps are those of a linear classifier of pixels.

    Shapes: ``(batch, channels, size, size)`` to ``(batch, classes)``.

    >>> model = PictureClassifier(size=8, channels=1, patch=2, width=32, depth=1, heads=1, classes=10, generator=0)
    >>> model(torch.rand(3, 1, 8, 8)).softmax(1).unique().tolist() == torch.full((1,), 0.1).tolist()
    True
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        generator: torch.Generator | int,
    ) -> None:
        super().__init__()
        self.transformer = nn.ImageTransformer(
            size=size, channels=channels, patch=patch, width=width, depth=depth, heads=heads, generator=generator
        )
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.head = torch.nn.Linear(channels * size**2, classes)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "batch channels size size"]) -> Float[Tensor, "batch classes"]:
        """The logits of each class; a picture as it is stands at time 0 of the transformer's flow."""
        now = torch.zeros(len(x), device=x.device)
        out: Tensor = self.head((x + self.transformer(x, now, now)).flatten(1))
        return out


class ClassifyJob(AbstractJob[ClassifyConfig]):
    """Cross entropy on labelled pictures, judged by the share of held-out ones that get their class."""

    units = ("pictures",)
    model: PictureClassifier

    def __init__(self, config: ClassifyConfig, folder: RunFolder, *, resuming: bool) -> None:
        self.config = config
        images = data.read_images(config.data or None)
        self.fingerprint = images.fingerprint
        draw = data.streams.generator(config.seed, "split")
        self.train, self.held_out, self.copies = divide(images, fraction=config.validation_fraction, generator=draw)
        if resuming:
            _check_classes(folder, self.train.classes)
        self.stream = data.streams.IndexStream(len(self.train), batch=config.batch_size, seed=config.seed)
        found = nearest_mean(self.train, self.held_out.pixels)
        self.by_means = int((found == self.held_out.labels).sum()) / len(self.held_out)

    def about_data(self) -> list[str]:
        """Pictures and classes, and how far the mean picture of each class gets."""
        left = f"held-out pictures that are also to learn from, and do not count: {self.copies:,}"
        return [
            about_source(self.train, self.held_out),
            *([left] if self.copies else []),
            about_pictures(self.train),
            f"the nearest mean of a class is right for {self.by_means:.1%} of the held-out pictures",
        ]

    def keep(self, folder: RunFolder) -> None:
        """Write the names of the classes, in the order of the logits."""
        write_json(folder.path / _CLASSES, {"classes": list(self.train.classes)})

    def build_model(self, config: ClassifyConfig) -> PictureClassifier:
        """The classifier of a full configuration, at its initial weights."""
        assert config.heads
        channels, size = self.train.pixels.shape[1:3]
        return PictureClassifier(
            size=size,
            channels=channels,
            patch=config.patch or default_patch(size),
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            classes=len(self.train.classes),
            generator=data.streams.generator(config.seed, "weights"),
        )

    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the mean cross entropy over batch ``step`` in ``p.grad``."""
        batch = self.train.at(self.stream.batch(step))
        nats, right = 0.0, 0
        for x, y in zip(*(part.split(self.config.micro_batch) for part in (batch.pixels, batch.labels)), strict=True):
            logits, labels = self._logits(x), y.to(self.device)
            loss = objectives.negative_log_likelihood(logits, labels)
            (loss / len(batch)).backward()
            nats += loss.item()
            right += int((logits.argmax(1) == labels).sum())
        mean, share = nats / len(batch), right / len(batch)
        words = f"loss {mean:.4f}  {share:.1%} right"
        return Measured(mean, {"pictures": len(batch)}, {"accuracy": share}, words)

    def _logits(self, pixels: Tensor) -> Tensor:
        with self.autocast:
            out: Tensor = self.model(pixels.to(self.device))
        return out.float()

    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is not finite on batch ``step``."""
        pixels = self.train.pixels[self.stream.batch(step)[: self.config.micro_batch]]
        return first_bad_tensor(self.model, lambda: self._logits(pixels))

    @torch.no_grad()
    def answers(self, images: data.images.Images) -> Float[Tensor, "pictures classes"]:
        """The logits of pictures, on the CPU."""
        return torch.cat([self._logits(part).cpu() for part in images.pixels.split(_PART)])

    def validate(self, *, whole: bool) -> Judged:
        """Cross entropy on the held-out pictures or the first of them, the share that is right, and its interval."""
        images = self.held_out if whole else self._first_held_out()
        logits = self.answers(images)
        loss = objectives.negative_log_likelihood(logits, images.labels).item() / len(images)
        right = int((logits.argmax(1) == images.labels).sum())
        low, high = wilson(right, len(images))
        share = right / len(images)
        words = f"loss {loss:.4f}, {share:.1%} right ({LEVEL:.0%}: {low:.1%} to {high:.1%})"
        words = f"{len(images):,} held-out pictures: {words}" if whole else words
        figures = {"accuracy": share, "accuracy_low": low, "accuracy_high": high}
        return Judged(loss, {"pictures": len(images)}, figures, words)

    def _first_held_out(self) -> data.images.Images:
        """Those judged on the way; their order is random."""
        return self.held_out.at(torch.arange(min(self.config.eval_pictures, len(self.held_out))))

    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Append to ``samples.txt`` what is most often taken for what."""
        images = self._first_held_out()
        names, labels, found = images.classes, images.labels.tolist(), self.answers(images).argmax(1).tolist()
        sizes, pairs = Counter(labels), sorted(zip(labels, found, strict=True))  # sorted: of equal counts the first
        mistakes = Counter((i, j) for i, j in pairs if i != j).most_common(_SHOWN)
        lines = [f"{names[i]} taken for {names[j]}: {count} of {sizes[i]}" for (i, j), count in mistakes]
        with open(folder.samples, "a", encoding="utf-8") as file:
            file.write(f"=== step {step}, mistakes on {len(images):,} held-out pictures\n")
            file.write("\n".join(lines or ["none"]) + "\n")

    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """The figures of the last validation, beside those of the nearest mean."""
        row: dict[str, object] = {
            "validation_loss": judged.loss,
            **judged.figures,
            "nearest_mean_accuracy": self.by_means,
            "held_out_pictures": judged.seen["pictures"],
            "epochs": self.stream.epoch(steps),
        }
        return row, [f"the nearest mean of a class, on the same pictures: {self.by_means:.1%} right"]

    def matrices(self) -> set[torch.nn.Parameter]:
        """The weights of the linear layers inside the blocks."""
        return block_matrices(self.model.transformer)

    def watch_list(self) -> list[str]:
        """The matrices of the first and the last block."""
        ends = tuple(f"transformer.blocks.{i}." for i in (0, self.config.depth - 1))
        return [n for n, p in self.model.named_parameters() if n.startswith(ends) and p.dim() == 2]

    def cost(self) -> str:
        """Floating-point operations of forward and backward."""
        return cost(self.model.transformer)


def _check_classes(folder: RunFolder, classes: tuple[str, ...]) -> None:
    """``ValueError`` where the logits of a run that goes on would get other names than they had."""
    known = read_object(folder.path / _CLASSES, what="the names of this run's classes")["classes"]
    if list(classes) != known:
        raise ValueError(
            f"the classes are not those of this run: {', '.join(classes)}; it began with {', '.join(map(str, known))}. "
            "Give the folders their names again, or start a new run in another --out-dir."
        )


def divide(
    images: data.images.Images, *, fraction: float, generator: torch.Generator
) -> tuple[data.images.Images, data.images.Images, int]:
    """Pictures to learn from and held-out ones, ``fraction`` of each class, in random order; and how many were copies.

    A held-out picture that is also one to learn from would say how well a model remembers, so it does not count.

    Raises ``DataError`` for pictures of one class, for a class of one picture, and where all held-out ones are copies.
    """
    images = _of_classes_there(images)
    order = torch.randperm(len(images), generator=generator)
    chosen = torch.zeros(len(images), dtype=torch.bool)
    for label, size in enumerate(images.labels.bincount().tolist()):
        own = order[images.labels[order] == label]
        chosen[own[: min(size - 1, max(1, round(fraction * size)))]] = True
    train, held_out = images.at(order[~chosen[order]]), images.at(order[chosen[order]])
    known = set(map(_digest, train.pixels))
    new = torch.tensor([_digest(picture) not in known for picture in held_out.pixels])
    if not new.any():
        raise data.DataError(f"all held-out pictures of {images.source} are also to learn from; give some that differ.")
    return train, held_out.at(new.nonzero().flatten()), int((~new).sum())


def _of_classes_there(images: data.images.Images) -> data.images.Images:
    """The pictures, numbered by the classes that have any; ``DataError`` where these cannot be told apart or cut."""
    # A class without a picture has no mean, and argmin takes NaN for the least of all distances.
    there, labels, sizes = images.labels.unique(return_inverse=True, return_counts=True)
    classes = tuple(images.classes[i] for i in there.tolist())
    if len(classes) < 2:
        raise data.DataError(
            f"{images.source} holds pictures of one class ({classes[0]!r}): there is nothing to tell it from. Give two "
            "at least; of a folder of PNG files each subfolder is one."
        )
    if int(sizes.min()) < 2:
        raise data.DataError(
            f"class {classes[int(sizes.argmin())]!r} of {images.source} has one picture, and none would be held out. "
            "Give two at least, or leave the class out."
        )
    return data.images.Images(images.pixels, labels, classes, images.source)


def _digest(picture: Tensor) -> bytes:
    return hashlib.blake2b(picture.numpy().tobytes(), digest_size=16).digest()


def nearest_mean(train: data.images.Images, pixels: Float[Tensor, "n channels size size"]) -> Tensor:
    """The class whose mean training picture is nearest to each picture: a linear classifier that needs no training."""
    means = torch.stack([train.pixels[train.labels == label].flatten(1).mean(0) for label in range(len(train.classes))])
    return torch.cat([torch.cdist(part.flatten(1), means).argmin(1) for part in pixels.split(_PART)])


def wilson(right: int, count: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share of which ``right`` of ``count`` independent draws were found.

    All p with |right / count - p| <= z sqrt(p (1 - p) / count), z the normal quantile of ``level``: never outside of
    [0, 1], and not a point where all or none are right. Source: Wilson, "Probable inference, the law of succession, and
    statistical inference" (1927).

    >>> [round(end, 3) for end in wilson(10, 10)]                      # ten of ten are no proof of more than this
    [0.722, 1.0]
    """
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    p, rest = right / count, z**2 / count
    middle = (p + rest / 2) / (1 + rest)
    half = (rest * (p * (1 - p) + rest / 4)) ** 0.5 / (1 + rest)
    return max(0.0, middle - half), min(1.0, middle + half)
