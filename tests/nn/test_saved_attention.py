"""Models of each kind of attention as commit 9652c41 wrote them: they load, and say what plain operations say.

The files in ``fixtures`` hold random weights; their metadata holds the arguments of the model, the configuration of a
run of that kind, and the names and shapes of the weights that its model had.
"""

import json
import math
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from spectrain import nn
from spectrain.train._jobs.model import build_model
from spectrain.train._run import recorded
from spectrain.train.config import TrainConfig

FILES = sorted((Path(__file__).parent / "fixtures").glob("*.safetensors"))
every = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [10, 0, 7, 7, 7, 8, 2, 1]])


def metadata(file):
    with safetensors.safe_open(file, "pt") as opened:
        return {k: json.loads(v) if v[0] == "{" else v for k, v in opened.metadata().items()}


def rms(x, gain=1.0, eps=2.0**-52):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def rotate(x, dim, sign=1):
    """The last ``dim`` coordinates of ``(batch, heads, length, numbers)``, as complex numbers."""
    still, moving = x[..., : x.shape[-1] - dim], x[..., x.shape[-1] - dim :]
    half = torch.arange(dim // 2, dtype=torch.float64)
    angle = sign * torch.arange(x.shape[-2])[:, None] * 10_000.0 ** -(half / len(half))
    pairs = torch.complex(moving[..., : len(half)], moving[..., len(half) :]) * torch.polar(angle.new_ones(()), angle)
    return torch.cat((still, pairs.real, pairs.imag), dim=-1)


def heads_of(x, count):
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def keys_and_values(w, x, a, heads, kv_heads, dim, turned, mistake):
    """Of every head, rotated, from the weights ``w`` of the attention."""
    if "latent" in a:
        c = rms(x @ w["latent"].T, w["latent_norm"], 1e-6)
        rotated = (x @ w["key_rotary"].T)[:, None].expand(-1, heads, -1, -1)
        key = torch.cat((heads_of(c @ w["key"].T, heads), rotated), -1)
        return rotate(key, turned), heads_of(c @ w["value"].T, heads)
    key = heads_of(x @ w["key"].T, kv_heads)
    key = rms(key) if a.get("qk_norm", True) and mistake != "keys as they are" else key
    if a.get("share") == "all":
        value = rotate(key, turned)
    elif a.get("share") == "content":
        value = torch.cat((key[..., : dim - turned], heads_of(x @ w["value"].T, kv_heads)), -1)
    else:
        value = heads_of(x @ w["value"].T, kv_heads)
    key = rotate(key, turned)
    if mistake == "heads in turns":
        return key.repeat(1, heads // kv_heads, 1, 1), value.repeat(1, heads // kv_heads, 1, 1)
    return (part.repeat_interleave(heads // kv_heads, 1) for part in (key, value))


def attention(w, x, arguments, mistake):
    a, heads = arguments["attention"], arguments["heads"]
    dim, kv_heads = a["head_dim"], arguments.get("kv_heads", heads)
    turned, length = a.get("rotary_dim", dim), x.shape[1]
    stream = rms(x @ w["query_down"].T, w["query_norm"], 1e-6) if "query_rank" in a else x
    q = heads_of(stream @ w["query"].T, heads)
    q = rotate(rms(q) if a.get("qk_norm", "latent" not in a) else q, turned)
    k, v = keys_and_values(w, x, a, heads, kv_heads, dim, turned, mistake)
    back = torch.arange(length)[:, None] - torch.arange(length)
    seen = (back >= 0) & (back < a.get("window", length) + (mistake == "window too wide"))
    if "log_n" in a:
        focus = seen.sum(-1).double().log() / math.log(a["log_n"])
        q = q * focus[:, None] * w.get("log_n_gain", torch.ones(heads))[:, None, None]
    scores = (q @ k.mT / math.sqrt(v.shape[-1] if mistake == "scale of the values" else dim)).masked_fill(~seen, -1e300)
    out = scores.softmax(-1) @ v
    if a.get("share") == "all" and mistake != "not turned back":
        out = rotate(out, turned, -1)
    return out.transpose(1, 2).flatten(2) @ w["output"].T


def logits(weights, arguments, mistake=""):
    """Of the whole model, in float64."""
    weights = {name: w.double() for name, w in weights.items()}
    inner = {
        n.removesuffix(".weight").split(".")[-1]: w for n, w in weights.items() if n.startswith("blocks.0.attention.")
    }
    x = rms(weights["embedding.weight"][TOKENS])
    x = x + attention(inner, rms(x, weights["blocks.0.attention_norm.weight"]), arguments, mistake)
    h = rms(x, weights["blocks.0.feed_forward_norm.weight"])
    gate, up, down = (weights[f"blocks.0.feed_forward.{name}.weight"] for name in ("gate", "up", "down"))
    x = x + (torch.nn.functional.silu(h @ gate.T) * (h @ up.T)) @ down.T
    return rms(x, weights["norm.weight"]) @ weights["head.weight"].T


def loaded(file):
    model = nn.LanguageModel(**metadata(file)["model"])
    model.load_state_dict(safetensors.torch.load_file(file), strict=True)
    return model


def test_there_is_a_file_of_each_kind_of_that_time():
    assert {"gqa", "mha", "mla", "mqa", "s1", "s2", "window"} <= {file.stem for file in FILES}
    assert sum(file.stat().st_size for file in FILES) < 50 * 1024


@every
@torch.no_grad()
def test_a_saved_model_says_what_plain_operations_say(file):
    model, truth = loaded(file), logits(safetensors.torch.load_file(file), metadata(file)["model"])
    torch.testing.assert_close(model.double()(TOKENS), truth, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.float()(TOKENS).double(), truth, rtol=1e-4, atol=1e-4)
    caches = model.double().empty_caches()
    parts = [model(part, caches=caches) for part in TOKENS.split([4, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), truth, rtol=1e-11, atol=1e-11)


MISTAKES = {
    "heads in turns": "gqa",
    "keys as they are": "mha",
    "scale of the values": "mla",
    "not turned back": "s2",
    "window too wide": "window",
}


@pytest.mark.parametrize(("mistake", "kind"), MISTAKES.items(), ids=MISTAKES)
@torch.no_grad()
def test_plain_operations_reject_wrong_answers(mistake, kind):
    file = next(file for file in FILES if file.stem == kind)
    wrong = logits(safetensors.torch.load_file(file), metadata(file)["model"], mistake)
    assert (loaded(file).double()(TOKENS) - wrong).abs().max() > 1e-3


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "window"], ids=lambda file: file.stem)
def test_a_recorded_run_has_the_model_that_it_had(file, tmp_path):
    told = metadata(file)
    (tmp_path / "config.json").write_text(json.dumps(told["run"]), encoding="utf-8")
    config = recorded.read_config(tmp_path / "config.json", TrainConfig)
    assert config.attention == file.stem
    assert config.derive()[0] == config
    shapes = {name: list(w.shape) for name, w in build_model(config, vocabulary=11).state_dict().items()}
    assert shapes == told["shapes"]
