"""Every job by its name, one line each. Standard library only: a job is loaded when it is asked for."""

import pkgutil
from typing import TYPE_CHECKING, Any, NamedTuple

from spectrain.train._run.config import RunConfig

if TYPE_CHECKING:
    from spectrain.train._run.job import AbstractJob


class Job(NamedTuple):
    """Where a job stands, as ``module:class``: words and no imports, for the rooms it stands in are above this one."""

    config: str
    """Its configuration: flags, and what the command's help says of it. Loads no torch."""
    trained: str
    """Its data, model and judgement."""
    verb: bool = True
    """Whether the command trains it; else Python alone does."""


JOBS = {
    "train": Job("spectrain.train.config:TrainConfig", "spectrain.train._jobs.language:LanguageJob"),
    "draw": Job("spectrain.train._jobs.draw_config:DrawConfig", "spectrain.train._jobs.draw:DrawJob"),
    "embed": Job("spectrain.train._jobs.embed_config:EmbedConfig", "spectrain.train._jobs.embed:EmbedJob"),
    "classify": Job(
        "spectrain.train._jobs.classify_config:ClassifyConfig", "spectrain.train._jobs.classify:ClassifyJob"
    ),
    "own": Job("spectrain.train._jobs.own_config:JobConfig", "spectrain.train._jobs.own:OwnJob", verb=False),
}
"""By the verb of the command, or another name, which is ``job`` in a run's ``config.json`` and of its class."""
TRAINERS = tuple(name for name, job in JOBS.items() if job.verb)
"""Those that are verbs."""


def config_class(name: str) -> type[RunConfig]:
    """The configuration class of a job."""
    found: type[RunConfig] = pkgutil.resolve_name(JOBS[name].config)
    return found


def job_class(name: str) -> "type[AbstractJob[Any]]":
    """The class of a job, which loads torch."""
    found: type[AbstractJob[Any]] = pkgutil.resolve_name(JOBS[name].trained)
    return found
