"""``spectrain plan``: what a run would cost each rank of a mesh, and which mesh it should take."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from spectrain._files.write import write_json
from spectrain.cli._flags import config_file
from spectrain.cli._parse import parse
from spectrain.train import TrainConfig
from spectrain.train.internal import fresh_config, read_config
from spectrain.train.planning import Cluster, RunPlan, choose_mesh, plan_run, read_cluster

MOST_RANKS = 2**14


@dataclass(frozen=True)
class Plan:
    """Say what a run would cost each rank: memory, bytes on each link, seconds of a step; start no process.

    All flags of spectrain train are taken, and mean what they mean there: put `plan` in the place of `train`. --mesh
    plans that mesh; --ranks plans every mesh of so many ranks and says which one to take.
    """

    ranks: int | None = None
    """Compare all meshes of so many ranks. Default: the ranks of --mesh and --tensor-parallel, or one process."""
    machine: str = "h100"
    """h100 or h200 (SXM, eight a machine, NVLink, 400 Gb/s a GPU between machines), or a file written by spectrain
    calibrate."""
    matrices: bool = False
    """List each rank's share of Muon's step, and every matrix with its way and its owner."""
    out: Path | None = None
    """Write the plan to this JSON file, too."""


def main(argv: list[str]) -> int:
    """Print the plan."""
    import tyro

    @dataclass(frozen=True)
    class Request(Plan):
        run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    Request.__doc__ = Plan.__doc__
    file, rest = config_file(argv)
    recorded = TrainConfig() if file is None else fresh_config(read_config(file, TrainConfig))
    asked = parse(Request, rest, prog="spectrain plan", default=Request(run=recorded))
    if asked.ranks is not None and not 1 <= asked.ranks <= MOST_RANKS:
        raise ValueError(f"--ranks must be from 1 to {MOST_RANKS:,}, got {asked.ranks}.")
    found = _found(asked.run, asked.ranks, read_cluster(asked.machine))
    print(found)
    if asked.matrices and found.muon is not None:
        _show_matrices(found)
    if asked.out is not None:
        muon = {} if found.muon is None else {"rows": found.muon.rows, "ranks": found.muon.ranks}
        write_json(asked.out, {**found.as_dict(), "muon": muon})
    return 0


def _found(config: TrainConfig, ranks: int | None, cluster: Cluster) -> RunPlan:
    if ranks is None or config.mesh is not None or config.tensor_parallel > 1:
        plan = plan_run(config, cluster)
        if ranks not in (None, plan.ranks):
            raise ValueError(f"--ranks {ranks} and a mesh of {plan.ranks}: give one of them.")
        return plan
    choices = choose_mesh(config, cluster, ranks=ranks)
    print("\n".join(map(str, choices)))
    best = choices[0].plan
    assert best is not None
    if not best.fits:
        raise ValueError(
            f"no mesh of {ranks} ranks of {cluster.name} holds this run: the smallest needs {best.bytes / 1e9:,.1f} GB "
            f"a rank and {cluster.memory / 1e9:,.1f} are there. Take more ranks, a smaller --micro-batch-size, or "
            "--recompute."
        )
    print("\nthe one to take:")
    return best


def _show_matrices(found: RunPlan) -> None:
    muon: Any = found.muon
    print(muon)
    for row in muon.rows:
        owner = "" if row["owner"] is None else f"rank {row['owner']}"
        print(f"{row['name']:40}  {'x'.join(map(str, row['shape'])):>12}  {row['method']:10}  {owner}")
