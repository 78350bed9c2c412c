"""What ``torchrun`` tells a process of the others. Standard library only: most runs are one process and ask no more."""

import os
from collections.abc import Mapping
from typing import NamedTuple


class Started(NamedTuple):
    """One of several processes that were started together."""

    rank: int
    world: int
    address: str
    port: int
    local: int
    """Its number on its machine: that of its GPU."""
    restarts: int
    """How often ``torchrun`` would start all of them again."""
    store_of_agent: bool = False
    """Whether ``torchrun`` itself keeps what ranks say before they are connected, and not rank 0."""


def started(environment: Mapping[str, str] | None = None) -> Started | None:
    """This process among those that ``torchrun`` started; None where it is alone.

    Raises ``ValueError`` naming the variable where some are there and the rest make no sense.

    >>> started({}) is None and started({"WORLD_SIZE": "1", "RANK": "0"}) is None
    True
    >>> started({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}).rank
    1
    """
    said = os.environ if environment is None else environment
    world = _number(said, "WORLD_SIZE", 1, least=1)
    if world == 1:
        return None
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not said.get(name)]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={world} is set and {', '.join(missing)} not. Start with torchrun, which sets them all, or "
            "unset WORLD_SIZE for a run of one process."
        )
    rank, port = _number(said, "RANK", 0), _number(said, "MASTER_PORT", 0)
    if rank >= world:
        raise ValueError(f"RANK={rank} is none of the {world} ranks of WORLD_SIZE, which count from 0.")
    if not 0 < port < 2**16:
        raise ValueError(f"MASTER_PORT must be from 1 to 65535, got {port}.")
    local, restarts = _number(said, "LOCAL_RANK", 0), _number(said, "TORCHELASTIC_MAX_RESTARTS", 0)
    agent = said.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Started(rank, world, said["MASTER_ADDR"], port, local, restarts, agent)


def follows() -> bool:
    """Whether another process, that of rank 0, speaks for this one."""
    try:
        found = started()
    except ValueError:  # said by whoever needs to know more
        return False
    return found is not None and found.rank > 0


def _number(said: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    text = said.get(name, "")
    if text and not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ValueError(f"{name} must be a number of at least {least}, got {text!r}; torchrun sets it.")
    return int(text) if text else default
