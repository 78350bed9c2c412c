"""The page about other packages, run against the packages themselves; what is not installed is skipped by name."""

import re
import warnings
from pathlib import Path

import pytest

from spectrain import optim

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
BLOCK = re.compile(r"^```py\n(.*?)^```", re.MULTILINE | re.DOTALL)


IN_TWO = "Run by `torchrun`"
ALONE = [title for title in SECTIONS if IN_TWO not in SECTIONS[title]]
TOGETHER = [title for title in SECTIONS if IN_TWO in SECTIONS[title]]


def blocks_of(title):
    """The code of a section; a skip where one of the packages is missing that it says it needs."""
    for package in re.search(r"^Needs ([\w, -]+)\.", SECTIONS[title], re.MULTILINE)[1].split(", "):
        pytest.importorskip(package, reason=f"{package} is an extra: the integrations")
    return BLOCK.findall(SECTIONS[title])


@pytest.mark.full
@pytest.mark.parametrize("title", TOGETHER)
def test_a_section_of_the_page_runs_in_two_processes(title, torchrun, accelerate_on_cpu):
    (program,) = blocks_of(title)
    torchrun(program, before=accelerate_on_cpu if "import Accelerator" in program else "")


@pytest.mark.parametrize("title", ALONE)
def test_a_section_of_the_page_runs(title, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    blocks = blocks_of(title)
    monkeypatch.chdir(tmp_path)
    assert blocks
    with warnings.catch_warnings():  # those of the packages are theirs
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="spectrain")
        for block in blocks:
            exec(compile(block, title, "exec"), {"__name__": "page"})


def trainer_of(given, folder, **settings):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="accelerate is an extra: the integrations")
    config = transformers.LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                      num_attention_heads=1)  # fmt: skip
    arguments = transformers.TrainingArguments(str(folder), report_to=[], use_cpu=True, **settings)
    return transformers.Trainer(transformers.LlamaForCausalLM(config), arguments, optimizer_cls_and_kwargs=given)


def test_rate_and_decay_are_those_beside_muon_and_not_the_trainers(tmp_path):
    given = (lambda: optim.Muon, {"lr": 1e-3})
    made = trainer_of(given, tmp_path, learning_rate=7e-4, weight_decay=0.07).create_optimizer()
    assert {group["lr"] for group in made.param_groups} == {1e-3}
    assert {group["weight_decay"] for group in made.param_groups} == {0.1, 0.0}  # 0.0: norms


def test_the_trainer_without_the_model_is_told_what_to_write(tmp_path):
    trainer = trainer_of((optim.Muon, {"lr": 1e-3}), tmp_path)
    with pytest.raises(ValueError, match=r"optimizer_cls_and_kwargs=\(Muon, \{'model': model, 'lr': \.\.\.\}\)"):
        trainer.create_optimizer()
