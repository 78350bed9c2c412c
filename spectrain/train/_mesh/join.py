"""Ranks meet: they find each other, make sure that they are the same program with the same wishes, and part again."""

import dataclasses
import datetime
import hashlib
import json
import secrets
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

import spectrain
from spectrain.train._mesh.environment import Started
from spectrain.train._mesh.failing import Elsewhere, exit_code, is_shared, is_told, of_rank, told
from spectrain.train._mesh.layout import Layout
from spectrain.train._mesh.lost import Witness, is_broken
from spectrain.train._mesh.ranks import Ranks, name_ranks

_PAUSE = 0.02
_here: list[Ranks] = []  # those of this process, while a run holds them: a process has one default group


@contextmanager
def joined(start: Started, layout: Layout, *, wishes: Mapping[str, object], timeout: float) -> Iterator[Ranks]:
    """The ranks of this run, connected; a call within a call gives the same ones.

    ``wishes``: what every rank was asked for, which must be the same. ``timeout``: seconds that a rank may keep others
    waiting. What ends one rank ends all: it raises its error, named, and the others ``Elsewhere``.

    Raises ``ValueError`` where they cannot meet, or differ in code or wishes.
    """
    if _here:
        yield _here[0]
        return
    store = _meet(start, timeout)
    witness = Witness(store, start.rank, start.world, timeout)
    try:
        ranks = _connect(start, layout, store, timeout)
        _compare(ranks, wishes)
        _here.append(ranks)
        yield ranks
    except Exception as error:
        said = _said(error, witness)
        raise said from said.__cause__
    finally:
        _here.clear()
        _part()


def here() -> Ranks | None:
    """The ranks that this process is one of at the moment."""
    return _here[0] if _here else None


def _meet(start: Started, timeout: float) -> dist.Store:
    try:
        if start.rank or start.store_of_agent:
            _reach(start, timeout)
        meeting = dist.rendezvous("env://", timeout=datetime.timedelta(seconds=timeout))
        return fresh_round(next(meeting)[0], start.rank, start.world, timeout)
    except (RuntimeError, ValueError, OSError) as error:
        raise told(ValueError(_why_not(start, str(error), timeout))) from error  # the others may be anywhere


def fresh_round(store: dist.Store, rank: int, world: int, timeout: float) -> dist.Store:
    """A part of a store in which only the ranks that run now have written.

    ``torchrun`` keeps one store for all its restarts, with the addresses of ranks that are gone. So rank 0 names a new
    round; every rank answers in it by a name of its own; rank 0 says which names it has, and a rank that does not find
    its own there has read the round of those before it, and looks again. Raises ``TimeoutError``.
    """
    own, until = secrets.token_hex(8), time.monotonic() + timeout
    answered = ""
    if rank == 0:
        store.set("round", own)
    while time.monotonic() < until:
        said = store.get("round").decode() if store.check(["round"]) else ""
        if said != answered:
            store.set(f"{said}/{rank}", own)
            answered = said
        if rank == 0 and all(store.check([f"{own}/{other}"]) for other in range(world)):
            store.set(f"{own}/all", ",".join(store.get(f"{own}/{other}").decode() for other in range(world)))
        if answered and store.check([f"{answered}/all"]):
            names = store.get(f"{answered}/all").decode().split(",")
            if names[rank] == own:
                return dist.PrefixStore(answered, store)
        time.sleep(_PAUSE)
    missing = [other for other in range(world) if not store.check([f"{answered}/{other}"])]
    raise TimeoutError(f"{name_ranks(missing)} did not come" if missing else "rank 0 did not answer")


def _reach(start: Started, timeout: float) -> None:
    """Wait until somebody listens: torch would, too, with a page of its own for every try."""
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((start.address, start.port), timeout=timeout).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _why_not(start: Started, said: str, timeout: float) -> str:
    if "EADDRINUSE" in said or "in use" in said:
        return f"port {start.port} is in use by another program. Give torchrun another --master-port."
    return (
        f"rank {start.rank} of {start.world} waited {timeout:g} s at {start.address}:{start.port} and the ranks did "
        f"not meet there ({said.splitlines()[0][:120]}). Is that host reachable, and are all {start.world} ranks "
        "started? --rank-timeout is how long they wait."
    )


def _connect(start: Started, layout: Layout, store: dist.Store, timeout: float) -> Ranks:
    limit = datetime.timedelta(seconds=timeout)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(start.local)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        store=dist.PrefixStore("ranks", store), rank=start.rank, world_size=start.world, timeout=limit,
    )  # fmt: skip
    device, (replicas, shards, tensor, experts) = "cuda" if gpu else "cpu", layout
    mesh = mesh_of({"replicas": replicas, "shards": shards * experts, "tensor": tensor}, device, limit)
    apart = {"replicas": replicas, "shards": shards, "experts": experts}
    of_experts = mesh_of(apart, device, limit) if experts > 1 else None
    ranks = Ranks(start.rank, layout, group=dist.group.WORLD, mesh=mesh, experts=of_experts)
    ranks.aside = Ranks(start.rank, layout, group=dist.new_group(backend="gloo", timeout=limit), mesh=mesh)
    return ranks


def mesh_of(sizes: Mapping[str, int], device: str, limit: datetime.timedelta) -> DeviceMesh:
    """A dimension for every size above 1, in their order; one of shards at least.

    Made of groups of our own: those that a mesh makes wait half an hour, whatever the limit.
    """
    names = [name for name, size in sizes.items() if size > 1 or name == "shards"]
    places = torch.arange(dist.get_world_size()).view([sizes[name] for name in names])
    groups = []
    for dim in range(places.ndim):
        for members in places.movedim(dim, -1).reshape(-1, places.shape[dim]).tolist():
            group = dist.new_group(members, timeout=limit)
            if dist.get_rank() in members:
                groups.append(group)
    if len(groups) == 1:
        return DeviceMesh.from_group(groups[0], device, mesh=places, mesh_dim_names=tuple(names))
    return DeviceMesh.from_group(groups, device, mesh=places, mesh_dim_names=tuple(names))


def _compare(ranks: Ranks, wishes: Mapping[str, object]) -> None:
    ranks.same("versions of torch", torch.__version__, cure="Install one on all machines.")
    ranks.same("code", code_digest(), cure="Install the same spectrain on all machines.")
    for name, said in wishes.items():
        flag = f"--{name.replace('_', '-')}"
        ranks.same(flag, json.dumps(said, default=str), cure="Give all ranks the same flags.")


def code_digest() -> str:
    """A digest of the text of every module of this package."""
    root, digest = Path(spectrain.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _said(error: Exception, witness: Witness) -> Exception:
    """What this rank raises in place of ``error``, so that one rank says what happened."""
    if isinstance(error, Elsewhere) or is_told(error):
        return error
    if is_shared(error):
        return error if witness.rank == 0 else Elsewhere(exit_code(error))
    if is_broken(error):
        return witness.explain(error)
    return of_rank(witness.rank, error) if witness.speaks() else Elsewhere(exit_code(error))


def _part() -> None:
    if dist.is_initialized():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # groups that broke with the run
            dist.destroy_process_group()


def wishes_of(config: Any, leave: tuple[str, ...]) -> dict[str, object]:
    """The fields of a configuration, for :func:`joined` to compare; those of ``leave`` may differ."""
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in leave}
