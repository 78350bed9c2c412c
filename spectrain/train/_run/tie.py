"""Weights belong to one configuration: what they were trained with is compared with what the folder says today."""

import hashlib
import json
from pathlib import Path
from typing import Any

from spectrain._files.read import NOT_FINITE, read_object
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.free import FREE


def digest(config: Path) -> str:
    """A digest of all that a ``config.json`` decides, whatever the order and the folder's name."""
    return hashlib.sha256(json.dumps(_values(config), sort_keys=True).encode()).hexdigest()[:16]


def check(folder: RunFolder) -> None:
    """Compare ``config.json`` with what the newest checkpoint and the finished weights were trained with.

    Raises ``ValueError`` naming the first value that differs. The horizon may have been fixed since the checkpoint was
    taken. A run of an earlier version that recorded nothing is believed.
    """
    for checkpoint in _checkpoint.every(folder.checkpoints)[-1:]:
        _same(folder, checkpoint)
    if folder.model.exists() and folder.summary.exists():
        recorded = read_object(folder.summary, what="the summary.json of this run", constants=NOT_FINITE).get(
            "config_digest"
        )
        if recorded is not None and recorded != digest(folder.config):
            raise ValueError(
                f"{folder.config} is not the configuration that {folder.model.name} was trained with (its digest is "
                f"{digest(folder.config)}, recorded is {recorded}): it was edited. Restore it."
            )


def check_unused(folder: RunFolder) -> None:
    """Refuse to begin a run among the files of another one whose ``config.json`` is gone."""
    parts = (folder.checkpoints, folder.metrics, folder.samples, folder.model, folder.summary)
    left = [path.name for path in parts if path.exists()]
    if not left:
        return
    copies = [kept.path / _checkpoint.CONFIG for kept in _checkpoint.every(folder.checkpoints)[::-1]]
    copy = next((copy for copy in copies if copy.exists()), None)
    cure = "Restore it" if copy is None else f"Put it back (cp {copy} {folder.config})"
    raise ValueError(
        f"{folder.path} holds {', '.join(left)} of a run, but no {folder.config.name}. {cure}, or choose another "
        "--out-dir. Nothing was changed."
    )


def _same(folder: RunFolder, checkpoint: _checkpoint.Checkpoint) -> None:
    copy = _checkpoint.recorded_config(checkpoint)
    if copy is None:
        return
    today, then = _values(folder.config), _values(copy)
    for name in dict.fromkeys((*then, *today)):
        fixed_since = name == "horizon" and then.get(name) is None
        if today.get(name) != then.get(name) and not fixed_since:
            raise ValueError(
                f"{folder.config} says {name} = {today.get(name)!r}, but {checkpoint.path} was taken with "
                f"{then.get(name)!r}: it was edited, or is another run's. Restore it (cp {copy} {folder.config}), or "
                "start a new run in another --out-dir. Nothing was changed."
            )


def _values(config: Path) -> dict[str, Any]:
    values = read_object(config, what="a run's config.json", constants=NOT_FINITE)
    return {key: value for key, value in values.items() if key not in FREE}
