"""One seed, one dtype, two sizes: what every test starts from. Imports nothing of spectrain that is checked."""

import collections
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = "a large suite: run with --full"


def pytest_configure():
    from spectrain._spinning import limit_spinning

    limit_spinning()  # before torch loads


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the large version of every suite")


@pytest.fixture(scope="session", autouse=True)
def torchvision_loads():
    """Declare two operators that torchvision cannot bring where its wheel is built for CUDA and torch is not.

    PyPI has no other wheel for Linux. transformers, timm and Lightning import it and compute nothing with these two.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None:
        return
    import torch

    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture
def full(request):
    """Whether the large version of a suite was asked for."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def printed_by_ranks(tmp_path_factory):
    """Run a program once a rank, with rank, world, file of the store and more as arguments; what each rank printed."""

    def run(program, world, *arguments):
        store = str(tmp_path_factory.mktemp("ranks") / "store")
        command = [sys.executable, "-W", "ignore", "-c", program]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), str(world), store, *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        try:
            answers = [process.communicate(timeout=300) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        assert all(process.returncode == 0 for process in ranks), answers
        return [out for out, _ in answers]

    return run


@pytest.fixture(scope="session")
def pretrained_folder(tmp_path_factory):
    """Make a folder as transformers writes it: a tiny model of a family, and a tokenizer with names of its own."""
    transformers = pytest.importorskip("transformers", reason="folders of transformers are made by it")
    made = {}

    def make(family, **settings):
        key = (family, repr(settings))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family.lower())
            numbers = _write_tokenizer(transformers, made[key])
            _write_model(transformers, family, made[key], numbers | settings)
        return made[key]

    return make


def _write_tokenizer(transformers, folder):
    """A byte-level BPE with NFC, as Qwen's, whose end of text has another name than ours; its token numbers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer, backend.decoder = normalizers.NFC(), decoders.ByteLevel()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["the norm of a matrix is its largest singular value and so on. " * 9], trainer)
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    backend.add_special_tokens([*names.values()])
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return {f"{role}_id": backend.token_to_id(name) for role, name in names.items()}


def _write_model(transformers, family, folder, settings):
    import torch

    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**sizes | settings)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for p in model.parameters():
            p.add_(torch.randn(p.shape), alpha=0.1)
        model.save_pretrained(folder)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason=LARGE)
        for item in items:
            if item.get_closest_marker("full"):  # not item.keywords: it holds the ids of parameters too
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """Say what this machine could not test, as Parquet where pyarrow is missing: a skip is not a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(r.longrepr[-1].removeprefix("Skipped: ") for r in skipped)
    for reason, count in sorted(reasons.items()):
        if reason != LARGE:
            terminalreporter.write_line(f"not tested here ({count}): {reason}")
