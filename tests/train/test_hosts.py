"""Several machines are one run: network namespaces with a cable between them, and the recipes that people start."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from spectrain.cli._flags import run_config
from spectrain.train import TrainConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = shlex.split(
    "--depth 1 --width 32 --heads 2 --kv-heads 2 --tokenizer bytes --block 16 --batch-size 4 --eval-interval 10 "
    "--eval-tokens 64 --final-eval-tokens 64 --sample-tokens 0 --spectrum-interval 0 --threads 1 --autocast off "
    "--muon-dtype float32 --device cpu --max-steps 10 --save-interval 5"
)
CABLE = "cable"
"""The name of the interface in each host."""


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def hosts():
    """Two network namespaces, each with nothing but itself and one end of a cable; skips where that is not allowed."""
    names = [f"spectrain{os.getpid() % 10**6}{side}" for side in "ab"]
    ends = [f"sp{os.getpid() % 10**6}{side}" for side in "ab"]
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command here")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for i, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            inside = ("-n", name)
            ip(*inside, "link", "set", end, "name", CABLE)
            ip(*inside, "addr", "add", f"10.213.77.{i + 1}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                ip(*inside, "link", "set", device, "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def environment(**more):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PATH": path, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


@pytest.mark.full
def test_two_hosts_with_a_cable_train_as_one_does(tmp_path, text_folder):
    """The recipe for several machines, word for word, on two hosts that see each other over one cable only."""
    with hosts() as names:
        started = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, "sh", EXAMPLES / "several_nodes.sh", text_folder, *SMALL],
                env=environment(NODES="2", RANKS="1", HEAD="10.213.77.1", ADDRESS=f"10.213.77.{i + 1}",
                                RUN=str(tmp_path / "two"), GLOO_SOCKET_IFNAME=CABLE),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=900)[0] for process in started]
        finally:
            for process in started:
                process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    words = ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "spectrain", "train", "--mesh", "2x1", "--data"]
    alone = [*words, text_folder, *SMALL, "--out-dir", tmp_path / "one"]
    subprocess.run(alone, env=environment(), check=True, capture_output=True, timeout=900)
    one, two = (safetensors.torch.load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert steps[0] == steps[1]


VARIABLES = {"RUN": "runs/big", "NODES": "2", "RANKS": "8", "ID": "7", "HEAD": "node1", "SLURM_NNODES": "2"}


def of_script(text):
    """The words after ``spectrain train`` in a shell script, variables filled in; those it is started with left out."""
    whole = re.sub(r"\\\n", " ", text)
    (line,) = [line for line in whole.splitlines() if "-m spectrain train" in line and not line.startswith("#")]
    filled = re.sub(r"\$\{(\w+)(?::-[^}]*)?\}|\$(\w+)", lambda m: VARIABLES.get(m[1] or m[2], "there"), line)
    words = shlex.split(filled)
    return [word for word in words[words.index("spectrain") + 2 :] if word != "$@"]


def read_by_our_parser(words):
    data = [*words[: words.index("--data") + 1], "text"]
    return run_config(TrainConfig, data, verb="train", description="")


@pytest.mark.parametrize("name", ["one_node.sh", "several_nodes.sh", "accelerate.sh"])
def test_a_recipe_speaks_of_flags_that_there_are(name):
    text = (EXAMPLES / name).read_text()
    assert subprocess.run(["sh", "-n", EXAMPLES / name], check=False).returncode == 0
    config = read_by_our_parser(of_script(text))
    assert config.resume == "auto"
    assert config.out_dir
    if name == "several_nodes.sh":
        assert config.mesh == "2x8"


def test_the_check_of_recipes_rejects_wrong_ones():
    text = (EXAMPLES / "one_node.sh").read_text()
    for wrong in (text.replace("--resume", "--resum"), text.replace("--out-dir", "--mesh")):
        assert wrong != text
        with pytest.raises(ValueError, match="--"):
            read_by_our_parser(of_script(wrong))


def test_the_job_of_slurm_starts_the_recipe_that_is_there():
    text = (EXAMPLES / "slurm.sbatch").read_text()
    assert subprocess.run(["bash", "-n", EXAMPLES / "slurm.sbatch"], check=False).returncode == 0
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.M))
    assert options["ntasks-per-node"] == "1"  # torchrun starts the ranks of a machine itself
    assert (EXAMPLES.parent / re.search(r"srun sh (\S+)", text)[1]).exists()
    given = set(re.findall(r"\b(NODES|RANKS|ID|HEAD)=", text))
    assert given == {"NODES", "RANKS", "ID", "HEAD"}
    assert re.search(r"RANKS=(\d+)", text)[1] == options["gpus-per-node"]


def test_the_job_of_kubernetes_is_one_and_fits_its_mesh():
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the recipe for Kubernetes")
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    (kind,) = job["spec"]["pytorchReplicaSpecs"].values()
    (container,) = kind["template"]["spec"]["containers"]
    assert container["name"] == "pytorch"  # the operator looks for this name
    command = container["command"]
    assert command[:4] == ["torchrun", "-m", "spectrain", "train"]
    config = read_by_our_parser(command[4:])
    devices, machines = int(job["spec"]["nprocPerNode"]), kind["replicas"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == devices
    assert config.mesh == f"{machines}x{devices}"
    assert config.resume == "auto"  # torchrun may start it again
    assert job["spec"]["elasticPolicy"]["minReplicas"] == machines
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/" + config.out_dir.strip("/").split("/")[0], "/text"} <= mounted
    named = {mount["name"] for mount in container["volumeMounts"]}
    assert named == {volume["name"] for volume in kind["template"]["spec"]["volumes"]}


def test_every_recipe_has_its_section():
    page = (EXAMPLES.parent / "docs" / "mesh.md").read_text()
    for file in EXAMPLES.iterdir():
        assert f"examples/{file.name}" in page, file.name
