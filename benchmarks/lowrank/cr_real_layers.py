"""CR on the linear layers of a trained model: errors at equal count, over top norms and over sampling by norms.

    python -m benchmarks.lowrank.cr_real_layers              # record, and docs/cr.svg; trains a model of depth 2 first
    python -m benchmarks.lowrank.cr_real_layers --run RUN    # a run folder of `spectrain train`

X holds what a layer reads on held-out text (its own library source, positions in rows), Y is its weight transposed. All
errors are ||X Y - approximation||_F in float64, computed here from the product and not by ``cr``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY, finish_run, held_out_tokens
from spectrain import lowrank, train
from spectrain._drawing import Line, Picture, save

FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
MODEL = {"max_steps": 60, "depth": 2}


def layers(run: Path, tokens: int) -> dict[str, tuple[Tensor, Tensor]]:
    """What each linear layer but the head reads on held-out text, and its weight transposed; float64."""
    made = train.load_run(run)
    ids = held_out_tokens(made)[:tokens]
    inputs: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, args: inputs.__setitem__(name, args[0].detach().flatten(0, -2).double())

    linear = {n: m for n, m in made.model.named_modules() if isinstance(m, torch.nn.Linear) and n != "head"}
    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in linear.items()]
    with torch.no_grad():
        made.model(ids.reshape(-1, min(made.config.block, tokens)))
    for hook in hooks:
        hook.remove()
    return {name: (inputs[name], module.weight.detach().double().mT) for name, module in linear.items()}


def error(X: Tensor, Y: Tensor, found: lowrank.cr) -> float:
    return float(torch.dist(X[:, found.indices] * found.weights @ Y[found.indices], X @ Y))


def compare(name: str, X: Tensor, Y: Tensor) -> list[dict]:
    rows = []
    for fraction in FRACTIONS:
        count = int(fraction * X.shape[1])
        found = lowrank.cr(X, Y, count=count)
        draws = [error(X, Y, lowrank.cr(X, Y, count=count, method="sampling", generator=s)) for s in range(5)]
        row = {"layer": name, "l": X.shape[1], "count": count, "fraction": fraction, "subset": error(X, Y, found)}
        row |= {
            m: error(X, Y, lowrank.cr(X, Y, count=count, method=m)) for m in ("norms", "greedy", "pivoted_cholesky")
        }
        row["norms, optimal weights"] = error(X, Y, lowrank.cr(X, Y, count=count, method="norms", weights="optimal"))
        row["full core"] = float(lowrank.cr(X, Y, count=count, core="full").error)
        J = lowrank.select_columns(X, count, method="osinsky")
        row["rows fitted"] = float(torch.dist(X[:, J] @ torch.linalg.lstsq(X[:, J], X @ Y).solution, X @ Y))
        rows.append(row | {"sampling": sum(draws) / len(draws), "size": float(torch.linalg.norm(X @ Y))})
    return rows


def measure(
    *, runs: Path, run: Path | None = None, model: Mapping[str, Any] = MODEL, tokens: int = 4096, layer: str = ""
) -> Found:
    """Every layer whose name contains ``layer``, on so many tokens of held-out text."""
    folder = run or finish_run(runs / "model", **model)
    rows = [row for name, (X, Y) in layers(folder, tokens).items() if layer in name for row in compare(name, X, Y)]
    for row in rows:
        row |= {f"/ {peer}": row["subset"] / row[peer] for peer in ("norms", "sampling")}
    keys = ["subset", "greedy", "pivoted_cholesky", "norms, optimal weights", "norms", "sampling"]
    worst = {key: max(row[key] for row in rows) for key in ("/ norms", "/ sampling")}
    fitted = [row["rows fitted"] / row["norms"] for row in rows]
    body = _record.table(
        ["layer", "count", "l", *keys, "subset / norms", "subset / sampling"],
        (
            [row["layer"], row["count"], row["l"], *(f"{row[k] / row['size']:.3f}" for k in keys)]
            + [f"{row[k]:.2f}" for k in ("/ norms", "/ sampling")]
            for row in rows
        ),
    )
    low = min(row["/ norms"] for row in rows)
    body += f"""

Errors relative to ||X Y||_F; sampling is the mean of five draws. Full core: a count x count matrix in the place of
the weights. Rows fitted: columns of X by Osinsky's rule, and pinv(X_S) X Y in the place of rows of Y: the same cost.

Subset over sampling: at most {worst["/ sampling"]:.2f}. Subset over top norms: {low:.2f} to {worst["/ norms"]:.2f};
the goal is 0.7. Where it is missed the terms of the products are nearly at right angles, where norms are already the
best rule for diagonal weights. Rows fitted over top norms: {min(fitted):.2f} to {max(fitted):.2f}."""
    figures = {"sampling": worst["/ sampling"], "norms": worst["/ norms"]}
    return Found(rows=rows, body=body, figures=figures, pages={"cr.svg": lambda path: save(picture(rows), path)})


def picture(rows: list[dict]) -> Picture:
    """Errors over those of the top norms, a point a layer and count."""
    lines = [
        Line(
            [row["fraction"] for row in rows],
            [row[key] / row["norms"] for row in rows],
            name=name,
            style="points",
            color=colour,
        )
        for key, name, colour in (
            ("sampling", "sampling", 1),
            ("norms, optimal weights", "norms, best weights", 2),
            ("subset", "subset", 0),
            ("rows fitted", "rows fitted", 3),
        )
    ]
    return Picture(
        "CR on linear layers of a trained model", "terms kept / all", "error / top norms", tuple(lines), log="y"
    )


if __name__ == "__main__":
    main(
        "cr_real_layers",
        "CR at equal count: at most {sampling:.2f} of the error of sampling, {norms:.2f} of that of top norms",
        measure,
        smoke={"model": TINY, "tokens": 64, "layer": "query"},
    )
