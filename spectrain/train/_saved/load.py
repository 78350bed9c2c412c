"""A trained model back from its run folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from spectrain import data, nn
from spectrain._files.read import read_object
from spectrain.train._jobs import samples
from spectrain.train._jobs.adapters import put_in
from spectrain.train._jobs.model import build_model
from spectrain.train._mesh.files import FOLDER
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run import recorded as _recorded
from spectrain.train._run import tie as _tie
from spectrain.train._run.folder import RunFolder
from spectrain.train._saved.factored import restructure
from spectrain.train.config import TrainConfig


@dataclass(frozen=True)
class TrainedRun:
    """What a run left behind, ready to write text."""

    config: TrainConfig
    tokenizer: data.Tokenizer
    model: nn.LanguageModel
    source: Path

    def sample(
        self,
        prompt: str,
        *,
        tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = 50,
        seed: int = 0,
    ) -> str:
        """``prompt`` and its continuation."""
        return samples.write(
            self.model,
            self.tokenizer,
            prompt,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            context=self.config.longest,
            generator=torch.Generator().manual_seed(seed),
        )

    def stream(
        self,
        prompts: Sequence[str],
        *,
        tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = 50,
        top_p: float | None = None,
        form: str = "auto",
        seed: int = 0,
    ) -> Iterator[list[str]]:
        """The prompts, then what each new token adds to each of them."""
        return samples.stream(
            self.model,
            self.tokenizer,
            prompts,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            context=self.config.longest,
            form=form,
            generator=torch.Generator().manual_seed(seed),
        )


def load_run(path: Path | str) -> TrainedRun:
    """Load the model of a run folder: the finished one, or else that of the newest checkpoint.

    Raises ``ValueError`` when the folder is no run, or one that has no weights yet, or whose files do
    not fit together.
    """
    folder = RunFolder(Path(path))
    if not folder.config.exists():
        raise ValueError(f"{path} is not a run folder: it has no config.json. Give the folder that train wrote.")
    recorded = _recorded.read_config(folder.config, TrainConfig)
    if not folder.tokenizer.exists():
        raise ValueError(f"{path} has no tokenizer.json; restore it, since token numbers mean nothing without it.")
    tokenizer = data.load_tokenizer(folder.tokenizer, exact=False)
    model = build_model(recorded, vocabulary=tokenizer.vocabulary_size)
    put_in(model, recorded)
    source = load_weights(model, folder)
    return TrainedRun(recorded, tokenizer, model.eval(), source)


def load_weights(model: torch.nn.Module, folder: RunFolder) -> Path:
    """Put a run's weights into ``model``: the finished ones, or else those of the newest checkpoint; return the file.

    The layers of a compressed run are brought into its shapes first. Raises ``ValueError`` when there are no weights
    yet, or when they are of another model or another configuration.
    """
    _tie.check(folder)
    if folder.factors.exists():
        restructure(model, read_object(folder.factors, what="the factors that compress wrote"))
    source = _newest_weights(folder)
    try:
        if source.is_dir():
            from spectrain.train._mesh import shards  # torch's checkpoints, which one process does without

            shards.read_model(source, model)
        else:
            safetensors.torch.load_model(model, str(source))
    except (RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise ValueError(f"{source} cannot be loaded: {str(error).splitlines()[-1].strip()}") from None
    return source


def _newest_weights(folder: RunFolder) -> Path:
    if folder.model.exists():
        return folder.model
    checkpoints = _checkpoint.every(folder.checkpoints)
    if not checkpoints:
        raise ValueError(f"{folder.path} has no weights yet: neither model.safetensors nor a checkpoint.")
    newest = checkpoints[-1]
    _checkpoint.verify(newest)
    return newest.path / (FOLDER if newest.of_ranks else "model.safetensors")
