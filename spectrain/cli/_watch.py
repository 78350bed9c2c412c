"""``spectrain watch``: the report of a run in a browser, while it trains."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spectrain import report


@dataclass(frozen=True)
class Watch:
    """Show the report of a run in a browser, and again whenever the run has written something.

    It is served to this machine alone, at 127.0.0.1; from elsewhere: ssh -L 6007:127.0.0.1:6007 MACHINE.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or a folder of runs."""
    port: int = 6007
    """Where a browser finds it; 0: any that is free."""
    every: float = 5.0
    """Seconds between two looks at the files."""


def main(argv: list[str]) -> int:
    """Serve until Ctrl-C."""
    asked = tyro.cli(Watch, args=argv, prog="spectrain watch")
    if not asked.runs:
        raise ValueError("watch needs at least one run folder, e.g. spectrain watch runs/NAME.")
    server = report.Watch(asked.runs, port=asked.port, every=asked.every)
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"watching at {server.url} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
