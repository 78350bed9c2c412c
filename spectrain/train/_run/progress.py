"""What a person sees while a run goes on: on a terminal and in a notebook a bar with the time left, else lines."""

import os
import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from spectrain.train._run.notebook import NotebookBar, in_notebook


class Progress:
    """Says lines that stay; on a terminal and in a notebook a bar with the time left stands below them.

    >>> with Progress(interval=2) as progress:
    ...     for step in (1, 2, 3):
    ...         progress.step(step, 3, f"loss {4 - step}.0")
    step 1/3  loss 3.0
    step 2/3  loss 2.0
    step 3/3  loss 1.0
    """

    def __init__(self, *, stream: TextIO | None = None, interval: int = 10) -> None:
        self.interval = interval
        self.stream = sys.stdout if stream is None else stream
        self._bar = (
            Bar(
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                BarColumn(bar_width=12),
                TextColumn("{task.description}"),
                console=Console(file=self.stream, highlight=False),
            )
            if self.stream.isatty()
            else None
        )
        shown = self._bar is None and stream is None and in_notebook()
        self._notebook = NotebookBar() if shown else None
        self._task = self._bar.add_task("starting", total=None, visible=False) if self._bar else None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str = "") -> None:
        """Print lines that stay."""
        if self._bar:
            self._bar.console.print(text, markup=False, soft_wrap=True)
            return
        try:
            print(text, file=self.stream, flush=True)
        except OSError:  # the reader went away (`| head`), the disk is full: the run is worth more than its lines
            self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the run

    def step(self, step: int, steps: int | None, text: str) -> None:
        """Report a finished step: move the bar, or print a plain line each ``interval`` steps."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, total=steps, description=text, visible=True)
        elif self._notebook:
            self._notebook.step(step, steps, text)
        elif step == 1 or step % self.interval == 0 or step == steps:
            self.say(f"step {step}/{steps or '?'}  {text}")
