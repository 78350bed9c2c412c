"""The list of kinds: what the command line takes, what a configuration checks, what a block is made of."""

import dataclasses
import inspect
import re
import subprocess
import sys
import typing

import pytest

from spectrain import nn
from spectrain.nn._attention import kinds
from spectrain.nn._attention.choice import Choice
from spectrain.train._jobs.model import attention_arguments
from spectrain.train._run import recorded
from spectrain.train.config import OF_ONE_KIND, TrainConfig

every = pytest.mark.parametrize("name", kinds.NAMES)


def test_the_command_line_takes_the_names_of_the_list():
    assert typing.get_args(typing.get_type_hints(TrainConfig)["attention"]) == kinds.NAMES
    assert {"gqa", "mha", "mla", "mqa", "s1", "s2"} <= set(kinds.NAMES)


def test_the_names_are_known_without_torch():
    code = "import sys; from spectrain.nn._attention.kinds import NAMES; print(len(NAMES), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(kinds.NAMES)), "False"]


@every
def test_what_a_kind_says_of_itself_is_there(name):
    choice, flags = kinds.choice(name), {field.name for field in dataclasses.fields(TrainConfig)}
    arguments = inspect.signature(nn.Attention).parameters
    assert isinstance(choice, Choice)
    assert {*choice.sizes, *choice.arguments} <= set(arguments)
    assert {*choice.sizes, *(name for name, _, _ in choice.defaults(64, 4, 32))} <= flags
    assert all(reason for _, _, reason in choice.defaults(64, 4, 32))


@every
def test_a_configuration_makes_a_block_of_the_kind_with_the_maps_that_it_names(name):
    full, _ = TrainConfig(attention=name, depth=1, width=32, heads=4, max_steps=1).derive()
    block = nn.Attention(32, heads=4, kv_heads=full.kv_heads, **attention_arguments(full))
    assert type(block.kind) is kinds.choice(name).kind
    assert {f"{fixed}.weight" for fixed in kinds.choice(name).fixed} <= set(block.state_dict())


def test_sizes_of_one_kind_are_those_that_a_configuration_checks():
    assert sorted(OF_ONE_KIND) == sorted(size for name in kinds.NAMES for size in kinds.choice(name).sizes)


@every
@pytest.mark.parametrize("size", OF_ONE_KIND)
def test_the_size_of_another_kind_is_refused_and_not_ignored(name, size):
    if size in kinds.choice(name).sizes:
        assert getattr(TrainConfig(attention=name, **{size: 3}), size) == 3
        return
    with pytest.raises(ValueError, match=f"--{size} must be left out without --attention {kinds.owner(size)}, got 3"):
        TrainConfig(attention=name, **{size: 3})


def test_a_recorded_kind_that_is_unknown_is_refused_with_the_names_there_are():
    names = ", ".join(map(repr, kinds.NAMES))
    with pytest.raises(ValueError, match=re.escape(f"attention must be Literal[{names}], got 'linear'")):
        recorded.from_values(TrainConfig, {"attention": "linear"}, source="config.json")


@pytest.mark.parametrize(
    ("flags", "refused"),
    [({"kv_heads": 1}, False), ({"heads": 4, "kv_heads": 1}, False), ({"heads": 4, "kv_heads": 4}, True)],
)
def test_one_key_head_may_be_named_where_it_is_the_only_one(flags, refused):
    if refused:
        with pytest.raises(ValueError, match="--kv-heads must be left out with --attention mqa"):
            TrainConfig(attention="mqa", **flags)
    else:
        assert TrainConfig(attention="mqa", max_steps=1, **flags).derive()[0].kv_heads == 1
