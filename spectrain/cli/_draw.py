"""``spectrain draw``: pictures in, a model that draws in one step and a report out."""

from spectrain.cli import _job
from spectrain.train.internal import DrawConfig

DESCRIPTION = "Learn to draw pictures from noise in one step (MeanFlow), and measure how well."


def main(argv: list[str]) -> int:
    """Train, write the report."""
    with _job.asked(DrawConfig, argv, description=DESCRIPTION) as config:
        stopped = _job.run(config)
    return 0 if stopped is None else stopped
