"""The language model that a configuration describes, and what muP makes of it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from spectrain import data, nn, optim
from spectrain.nn.internal import kinds, read_scaling
from spectrain.train.config import TrainConfig

_OF_ATTENTION = re.compile(r"Attention( with \w+=('\w+'|\d+))?")
_SIZE = re.compile(r"\b([a-z]+_(?:dim|rank|heads)|[a-z]+(?==))\b(=?)")
_QK_NORMS: dict[str, bool | str | None] = {
    "auto": None, "off": False, "plain": True, "gains": "gains", "whole": "whole",
}  # fmt: skip


def build_model(
    config: TrainConfig, *, vocabulary: int, generator: torch.Generator | int | None = None
) -> nn.LanguageModel:
    """The model of a full configuration, at its initial weights; ``vocabulary`` is that of the tokenizer.

    They are drawn from the run's own stream; ``generator``: from this one.
    """
    assert config.width
    assert config.heads
    rows = config.embedding_rows or vocabulary
    if rows < vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens, and the embedding {rows} rows: it is that of another model."
        )
    with _in_flags(config):
        return nn.LanguageModel(
            vocabulary=rows,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            kv_heads=config.kv_heads,
            hidden=config.hidden,
            tied=config.tied,
            embedding_norm=config.embedding_norm,
            norm_eps=config.norm_eps,
            norms=config.norms,
            attention=attention_arguments(config),
            feed_forward=feed_forward(config),
            generator=data.streams.generator(config.seed, "weights") if generator is None else generator,
        )


@contextmanager
def _in_flags(config: TrainConfig) -> Iterator[None]:
    """Say of sizes of attention that do not fit each other what was typed, not what the module calls it."""
    try:
        yield
    except ValueError as error:
        if not (found := _OF_ATTENTION.match(str(error))):
            raise
        said = _SIZE.sub(
            lambda name: f"--{name[1].replace('_', '-')}{' ' if name[2] else ''}", str(error)[found.end() :]
        )
        raise ValueError(f"--attention {config.attention}{said}") from None


def parametrisation(config: TrainConfig, model: torch.nn.Module) -> optim.Parametrisation | None:
    """What ``--parametrisation`` makes of a model of this configuration; None for the standard one.

    Maps to a size that does not grow with the width are outputs, and inputs those from such a size: keys and values
    that all heads share, rotated keys beside a latent, queries through ``--query-rank``, outputs through
    ``--output-rank``. The router says it of itself.
    """
    if config.parametrisation == "standard":
        return None
    roles = {f"*.attention.{name}.weight": "output" for name in kinds.choice(config.attention).fixed}
    if config.query_rank is not None:
        roles |= {"*.attention.query_down.weight": "output", "*.attention.query.weight": "input"}
    if config.output_rank is not None:
        roles |= {"*.attention.output_down.weight": "output", "*.attention.output.weight": "input"}
    return optim.mup(model, base_width=config.base_width, roles=roles)


def feed_forward(config: TrainConfig) -> Callable[[int], torch.nn.Module] | None:
    """What makes the second half of a block, where it is another than SwiGLU without biases."""
    if not config.feed_forward_bias:
        return experts(config)
    assert config.width
    assert config.hidden
    width, hidden = config.width, config.hidden
    return lambda i: nn.models.SwiGLU(width, hidden=hidden, bias=True)


def experts(config: TrainConfig) -> Callable[[int], torch.nn.Module] | None:
    """What makes the second half of a block: a mixture of experts of the cost of ``--hidden``, or None for dense."""
    if config.moe_experts is None:
        return None
    assert config.width
    assert config.hidden
    width, count = config.width, config.moe_experts
    target, usual = config.moe_target, nn.experts.Balance.rate
    balance = nn.experts.Balance(rule=config.moe_balance, rate=config.moe_balance_rate or usual, target=target)
    penalty = None
    if config.moe_penalty:  # of the whole step: micro-batches and ranks add up to the same gradient
        penalty = nn.experts.Penalty(weight=config.moe_penalty * count, scope="global", target=target)
    narrow = max(1, config.hidden // (config.moe_top_k + config.moe_shared) // 4) * 4  # rows that grouped_mm takes

    def make(_: int) -> torch.nn.Module:
        return nn.MoE(
            width,
            experts=count,
            top_k=config.moe_top_k,
            hidden=narrow,
            shared=config.moe_shared,
            activation="sigmoid",
            renormalise=True,
            select=config.moe_select,
            balance=balance,
            penalty=penalty,
        )

    return make


def attention_arguments(config: TrainConfig) -> dict[str, object]:
    """The arguments of ``nn.Attention`` that a full configuration decides, besides its heads."""
    kind = kinds.choice(config.attention)
    eps = {} if config.norm_eps is None else {"norm_eps": config.norm_eps}
    return {
        **kind.arguments,
        **eps,
        "qk_norm": _QK_NORMS[config.qk_norm],
        "bias": config.bias,
        "rotary_base": config.rotary_base,
        "rotary_scaling": read_scaling(config.rotary_scaling),
        **{name: getattr(config, name) for name in kind.sizes},
        "head_dim": config.head_dim,
        "value_dim": config.value_dim,
        "rotary_dim": config.rotary_dim,
        "query_rank": config.query_rank,
        "output_rank": config.output_rank,
        "window": config.window,
        "log_n": None if config.log_n == "off" else config.block,
        "log_n_learned": config.log_n == "learned",
    }
