"""How good drawings are, by measures that need no download: a classifier trained here, and nearest neighbours."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain import data

_STEPS, _BATCH, _FEATURES = 800, 128, 64


@dataclass(frozen=True)
class Verdict:
    """What a set of drawings is worth."""

    accuracy: float
    """Share of the drawings that the classifier takes for what was asked."""
    frechet: float
    """Frechet distance to the training pictures in the classifier's features."""
    novelty: float
    """Median distance to the nearest training picture, over that of held-out pictures; near 0: copies."""


class Judge:
    """A small convolutional classifier of the training pictures, and their features.

    Everything is a function of the pictures and ``seed``. ``accuracy`` is its own on the held-out pictures, the
    most that drawings can be expected to reach; ``frechet`` the distance of the held-out pictures. It falls with the
    number of pictures, so many good drawings have less.
    """

    def __init__(self, train: data.images.Images, held_out: data.images.Images, *, seed: int) -> None:
        self.train, self.held_out = train, held_out
        self.net = _classifier(train, data.streams.generator(seed, "judge", "weights"))
        _fit(self.net, train, data.streams.generator(seed, "judge", "batches"))
        self.features = self._features(train.pixels)
        self.apart = nearest(held_out.pixels, train.pixels).median().item()
        own = self(held_out.pixels, held_out.labels)
        self.accuracy, self.frechet = own.accuracy, own.frechet

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]) -> Verdict:
        """Judge drawings that were asked to be of ``labels``."""
        pixels = pixels.clamp(-1, 1)
        found = torch.cat([self.net(part) for part in pixels.split(500)]).argmax(1)
        return Verdict(
            accuracy=(found == labels).double().mean().item(),
            frechet=frechet(self._features(pixels), self.features),
            novelty=nearest(pixels, self.train.pixels).median().item() / max(self.apart, 1e-12),
        )

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.net[:-1](part) for part in pixels.split(500)])


def frechet(a: Float[Tensor, "n features"], b: Float[Tensor, "m features"]) -> float:
    """``|mean_a - mean_b|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2))``, A and B the covariances, in float64.

    Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions" (1982).

    >>> draw = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 3, generator=draw)
    >>> round(frechet(x, x), 9), round(frechet(x, x + 2), 6)
    (0.0, 12.0)
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.mT), torch.cov(b.mT)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    gap = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, gap.item())


def nearest(pixels: Float[Tensor, "n c h w"], others: Float[Tensor, "m c h w"]) -> Float[Tensor, " n"]:
    """The distance from each picture to the nearest of the others."""
    table = others.flatten(1)
    return torch.cat([torch.cdist(part.flatten(1), table).amin(1) for part in pixels.split(500)])


def _classifier(images: data.images.Images, draw: torch.Generator) -> nn.Sequential:
    channels, size = images.pixels.shape[1:3]
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator: lend it this one's state
        torch.set_rng_state(draw.get_state())
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(min(4, -(-size // 2))),
            nn.Flatten(),
            nn.Linear(64 * min(4, -(-size // 2)) ** 2, _FEATURES),
            nn.ReLU(),
            nn.Linear(_FEATURES, len(images.classes)),
        )


def _fit(net: nn.Module, images: data.images.Images, draw: torch.Generator) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(_STEPS):
        index = torch.randint(len(images), (min(_BATCH, len(images)),), generator=draw)
        noisy = images.pixels[index]
        noisy = noisy + 0.1 * torch.randn(noisy.shape, generator=draw)  # drawings are never quite clean
        optimizer.zero_grad()
        F.cross_entropy(net(noisy), images.labels[index]).backward()
        optimizer.step()
