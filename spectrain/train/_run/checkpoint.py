"""Checkpoints: written whole or not at all, tied to their configuration, checked by digest before they are believed."""

import errno
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

import spectrain
from spectrain._files.read import read_object
from spectrain._files.write import remove_folder, write_folder
from spectrain.train._mesh import whole
from spectrain.train._mesh.files import FOLDER, INDEX, file_digest
from spectrain.train._mesh.ranks import ALONE, Ranks
from spectrain.train._run.folder import RunFolder

State = dict[str, Any]
CONFIG = "config.json"
"""The run's configuration as it was when the checkpoint was taken."""
_FILES = ("model.safetensors", "state.pt")
_FILES_OF_RANKS = (f"{FOLDER}/{INDEX}", "state.pt")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder ``step-XXXXXXXX`` holding weights, state and a manifest of digests."""

    path: Path

    @property
    def of_ranks(self) -> bool:
        """Whether several ranks wrote it, each its part."""
        return (self.path / FOLDER).is_dir()

    @property
    def step(self) -> int:
        """Optimizer steps done when it was taken."""
        return int(self.path.name.removeprefix("step-"))


def save(
    folder: Path, model: nn.Module, state: State, *, step: int, keep: int, config: Path | None = None
) -> Checkpoint:
    """Write the checkpoint of ``step`` and remove all but the newest ``keep`` up to it.

    A copy of the file ``config`` goes into it, with its digest in the manifest. Nothing older is touched before the new
    one is safely on the disk. Raises ``OSError`` (a full disk, say) with the older checkpoints as they were.
    """

    def weights(temporary: Path) -> dict[str, str]:
        safetensors.torch.save_model(model, str(temporary / "model.safetensors"))
        return {}

    copy = None if config is None else config.read_bytes()
    return publish(folder, weights, state, step=step, keep=keep, config=copy)


def publish(
    folder: Path,
    tensors: Callable[[Path], Mapping[str, str]],
    state: State,
    *,
    step: int,
    keep: int,
    config: bytes | None,
) -> Checkpoint:
    """:func:`save` where ``tensors`` writes the weights into the new folder, and gives digests of files in folders."""
    checkpoint = at(folder, step)

    def fill(temporary: Path) -> None:
        elsewhere = tensors(temporary)
        torch.save({**state, "versions": _versions()}, temporary / "state.pt")
        if config is not None:
            (temporary / CONFIG).write_bytes(config)
        own = sorted(file for file in temporary.iterdir() if file.is_file())
        digests = {file.name: file_digest(file) for file in own} | dict(elsewhere)
        (temporary / "manifest.json").write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")

    try:
        write_folder(checkpoint.path, fill)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch and safetensors wrap the system's
        raise _disk_error(checkpoint.path, error) from error
    for old in [old for old in every(folder) if old.step < step][: -keep + 1 or None]:
        remove_folder(old.path)
    return checkpoint


def at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step in a folder, be it there or not.

    >>> at(Path("checkpoints"), 40).path.name
    'step-00000040'
    """
    return Checkpoint(folder / f"step-{step:08d}")


def every(folder: Path) -> list[Checkpoint]:
    """All checkpoints in a folder, oldest first."""
    return [Checkpoint(path) for path in sorted(folder.glob("step-????????"))]


def checkpoints(run: Path) -> list[Checkpoint]:
    """All checkpoints of a run folder, oldest first.

    >>> checkpoints(Path("no such run"))
    []
    """
    return every(RunFolder(run).checkpoints)


def restore(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, job: State, ranks: Ranks = ALONE
) -> State:
    """Put weights and the optimizer's state back, whoever wrote them and however both are divided now; the rest.

    ``job``: the state of the job as it is, which says how the tensors of the one that is returned are to lie.
    Raises ``ValueError`` as :func:`load` does.
    """
    if ranks.alone and not checkpoint.of_ranks:
        state = load(checkpoint, model)
        optimizer.load_state_dict(state.pop("optimizer"))
        return state
    ranks.by_all(lambda: verify(checkpoint, part=ranks.rank, parts=ranks.world))
    state = torch.load(checkpoint.path / "state.pt", weights_only=True, mmap=True)
    try:
        if checkpoint.of_ranks:
            from spectrain.train._mesh import shards  # torch's checkpoints, which one process does without

            state |= shards.read(checkpoint.path / FOLDER, model, optimizer, job, state, ranks)
        else:
            whole.read_model(checkpoint.path / _FILES[0], model)
            state["optimizer"] = whole.spread(state["optimizer"], optimizer)
    except (RuntimeError, KeyError) as error:
        raise _another_model(checkpoint, error) from None
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def load(checkpoint: Checkpoint, model: nn.Module) -> State:
    """Put the weights into ``model`` and return the rest of the state.

    Raises ``ValueError`` for a checkpoint that is truncated, altered or of another model, naming the
    file and the way out; nothing is changed or removed then.
    """
    verify(checkpoint)
    try:
        safetensors.torch.load_model(model, str(checkpoint.path / "model.safetensors"))
    except RuntimeError as error:
        raise _another_model(checkpoint, error) from None
    state: State = torch.load(checkpoint.path / "state.pt", weights_only=True)
    return state


def _another_model(checkpoint: Checkpoint, error: Exception) -> ValueError:
    return ValueError(
        f"{checkpoint.path} holds the weights of another model: {str(error).splitlines()[-1].strip()} "
        "Resume with the configuration in the run's config.json."
    )


def verify(checkpoint: Checkpoint, *, part: int = 0, parts: int = 1) -> None:
    """Compare every file with the manifest's digest; ``ValueError`` names the first that differs.

    Of several ranks each compares its ``part`` of the files.
    """
    try:
        digests = read_object(checkpoint.path / "manifest.json", what="the manifest that came with it")
        needed = _FILES_OF_RANKS if checkpoint.of_ranks else _FILES
        names = list(dict.fromkeys((*needed, *digests)))[part::parts]
        bad = next((name for name in names if file_digest(checkpoint.path / name) != digests.get(name)), None)
    except (OSError, ValueError) as error:
        bad = str(error)
    if bad is not None:
        raise _damaged(checkpoint, bad)


def recorded_config(checkpoint: Checkpoint) -> Path | None:
    """The checkpoint's copy of its configuration, checked by digest; None in one of a version that kept none.

    Raises ``ValueError`` where the copy is not what the manifest says.
    """
    try:
        digests = read_object(checkpoint.path / "manifest.json", what="the manifest that came with it")
        same = CONFIG not in digests or file_digest(checkpoint.path / CONFIG) == digests[CONFIG]
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, str(error)) from None
    if not same:
        raise _damaged(checkpoint, CONFIG)
    return checkpoint.path / CONFIG if CONFIG in digests else None


def _damaged(checkpoint: Checkpoint, what: str) -> ValueError:
    return ValueError(
        f"checkpoint {checkpoint.path} is damaged ({what}). Nothing was changed. "
        f"Move that folder away to resume from the checkpoint before it."
    )


def _versions() -> dict[str, str]:
    return {
        "spectrain": spectrain.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def other_versions(state: State) -> str | None:
    """What wrote the checkpoint of a state and is another version now, as a sentence; None where nothing is."""
    written, now = state.get("versions", {}), _versions()
    other = [f"{name} {old} then, {now.get(name)} now" for name, old in written.items() if now.get(name) != old]
    if not other:
        return None
    return f"note: other versions than wrote the checkpoint ({'; '.join(other)}): digits may differ from here on"


def _disk_error(path: Path, error: Exception) -> OSError:
    free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
    code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return OSError(
        code,
        f"could not write checkpoint {path} ({error}); {free / 1e6:.0f} MB are free there. "
        "Older checkpoints are intact: make room and resume",
    )
