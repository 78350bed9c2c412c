"""``spectrain train``: text in, trained model, sample and report out."""

import shlex
from pathlib import Path

from spectrain.cli import _job
from spectrain.train.config import TrainConfig


def main(argv: list[str]) -> int:
    """Train, write the report, show a sample."""
    with _job.request(TrainConfig, argv) as config:
        stopped = _job.run(config)
        if stopped is not None:  # 0 of a rank that only follows: another one shows the sample
            return stopped
        _show_sample(Path(config.out_dir))
        return 0


def _show_sample(run: Path) -> None:
    samples = run / "samples.txt"
    if samples.exists():
        last = samples.read_text(encoding="utf-8").split("\n=== ")[-1].removeprefix("=== ")
        print(f"a sample, {last.rstrip()}\n")
    print(f"more: spectrain sample {shlex.quote(str(run))} --prompt 'def '")
