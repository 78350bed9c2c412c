"""A checkpoint of several ranks: taken at once, written by a thread on each of them while training goes on."""

import threading
from pathlib import Path

import torch

from spectrain.train._mesh import shards
from spectrain.train._mesh.failing import exit_code, shared
from spectrain.train._mesh.files import FOLDER
from spectrain.train._mesh.ranks import Ranks
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run.folder import RunFolder


class Writing:
    """A checkpoint on its way to the disk.

    Each rank copies its part of all tensors, which is all that training waits for. Then a thread on each writes it,
    and speaks with the others on a group of its own; rank 0 makes the folder, collects the digests and gives it its
    name when everything is on the disk. A kill in between leaves the checkpoint before.
    """

    def __init__(
        self, folder: RunFolder, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: _checkpoint.State,
        ranks: Ranks, *, step: int, keep: int,
    ) -> None:  # fmt: skip
        self.tensors, rest = shards.take(model, optimizer, state["job"])
        self.state = {**state, **rest}
        self.folder, self.ranks, self.step, self.keep = folder.checkpoints, ranks.aside, step, keep
        self.config = folder.config.read_bytes() if ranks.first else b""
        self.failed: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)  # a run that fails does not wait for it
        self.thread.start()

    def settle(self) -> None:
        """Wait until it is on the disk, on all ranks; raise on all what kept any of them from it."""
        self.thread.join()
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            self._lead() if self.ranks.first else self._follow()
        except Exception as error:  # settle says it, in the thread where the run can end
            self.failed = error

    def _lead(self) -> None:
        told = False

        def tensors(temporary: Path) -> dict[str, str]:
            nonlocal told
            told = True
            self.ranks.tell((temporary, 0))
            return shards.write(temporary / FOLDER, self.tensors, self.ranks)

        try:
            _checkpoint.publish(self.folder, tensors, self.state, step=self.step, keep=self.keep, config=self.config)
        except Exception as error:
            if not told:
                self.ranks.tell((None, 0))
            self.ranks.tell(("", exit_code(error)))
            raise shared(error) from None
        self.ranks.tell(("", 0))

    def _follow(self) -> None:
        temporary, _ = self.ranks.tell((None, 0))
        trouble: Exception | None = None
        if temporary is not None:
            try:
                shards.write(temporary / FOLDER, self.tensors, self.ranks)
            except Exception as error:  # rank 0 has it too, and says it
                trouble = error
        _, code = self.ranks.tell(("", 0))
        if code:
            raise shared(trouble or OSError("rank 0 could not write the checkpoint"))
