"""``spectrain design KIND``: what it prints as code is what it promises, and what it does not know it says."""

import json
import subprocess
import sys

import numpy as np
import pytest

from spectrain.cli._design import main
from spectrain.cli._designs import function


def made(folder, name, *, code=None):
    """The names of the printed code, and the JSON."""
    space: dict = {}
    exec((folder / f"{code or name}.py").read_text(), space)
    assert (folder / f"{name}.svg").read_text().startswith("<svg")
    assert "<html" in (folder / f"{name}.html").read_text()
    return space, json.loads((folder / f"{name}.json").read_text())


def test_the_best_polynomial_as_code(tmp_path, capsys):
    flags = ["--f", "exp(x)*abs(x-0.1)", "--interval", "-1", "2", "--powers", "9", "--out", str(tmp_path)]
    assert main(["minimax", *flags]) == 0
    assert "proven" in capsys.readouterr().out
    space, data = made(tmp_path, "best")
    x = np.linspace(-1, 2, 20_001)
    error = np.exp(x) * abs(x - 0.1) - space["p"](x)
    assert data["proven"]
    assert np.abs(error).max() <= data["upper"] * (1 + 1e-12)
    assert np.abs(error).max() >= data["lower"] * (1 - 1e-3)
    assert (tmp_path / "best.svg").read_text().count("<circle") == len(data["reference"]) + 1  # one in the legend


def test_weights_unions_and_conditions(tmp_path):
    pieces, powers = ["--interval", "0", "1", "2", "3"], ["--powers", "0", "1", "2", "3"]
    more = ["--weight", "1/(1+x)", "--constraint", "value:0:1", "--out", str(tmp_path)]
    assert main(["minimax", "--f", "exp(-x)", *pieces, *powers, *more]) == 0
    space, data = made(tmp_path, "best")
    assert data["interval"] == [[0, 1], [2, 3]]
    assert space["p"](0.0) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(("r", "s"), [(2, -1), (4, -1), (3, 2)])
def test_the_root_as_code(tmp_path, r, s):
    assert main(["root", "--r", str(r), "--s", str(s), "--lower", "0.01", "--tol", "1e-9", "--out", str(tmp_path)]) == 0
    space, _ = made(tmp_path, "root")
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    v = np.geomspace(0.01, 1, 6)
    np.testing.assert_allclose(space["root"]((Q * v) @ Q.T), (Q * v ** (s / r)) @ Q.T, atol=1e-6)


@pytest.mark.parametrize(("kind", "target"), [("step", lambda x: x > 1.0), ("clip", lambda x: np.minimum(x, 1))])
def test_step_and_clip_as_code(tmp_path, kind, target):
    assert main([kind, "--upper", "3", "--gap", "0.1", "--tol", "1e-4", "--out", str(tmp_path)]) == 0
    space, data = made(tmp_path, kind)
    x = np.linspace(0, 3, 3001)
    outside = abs(x - 1) > 0.1
    assert np.abs(space[kind](x) - target(x))[outside].max() <= data["error"] + 1e-12


def test_recipes_are_listed_and_drawn(tmp_path, capsys):
    assert main(["recipe"]) == 0
    assert "cubic5" in capsys.readouterr().out
    assert main(["recipe", "jordan", "--lower", "0.01", "--out", str(tmp_path)]) == 0
    assert "0.318" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["__import__('os')", "x.real", "f(x)", "exp(x", "'x'", "lambda: 1", "[x]"])
def test_only_functions_of_x_are_evaluated(text):
    with pytest.raises(ValueError, match="design:"):
        function(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["area"], "kinds are"),
        (["minimax", "--f", "x", "--interval", "1"], "pairs of ends"),
        (["minimax", "--f", "x", "--interval", "1", "0"], "a < b"),
        (["minimax", "--f", "x", "--constraint", "value=1"], "kind:where:value"),
        (["recipe", "newton"], "no recipe"),
        (["root", "--r", "1000000", "--steps", "3"], "at most 1000"),
        (["root", "--r", "3", "--s", "-1000000", "--steps", "3"], "at most 1000"),
        (["clip", "--upper", "1e300", "--tol", "1e-3"], "at most 1e"),
    ],
)
def test_wrong_designs_are_refused(words, said):
    with pytest.raises(ValueError, match=said):
        main(words)


@pytest.mark.parametrize("words", [[], ["--lower", "1e-3", "--steps", "5"]], ids=["as it is", "README's example"])
def test_the_default_design_runs_to_its_end_in_an_empty_folder(spectrain, tmp_path, words):
    done = spectrain("design", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "error <= 0.1134 (proven" in done.stdout  # Polar Express, arXiv 2505.16932: five optimal quintics
    space, data = made(tmp_path / "design", "schedule", code="polar_numpy")
    assert len(data["polynomials"]) == 5
    values = np.linalg.svd(space["polar"](np.diag(np.geomspace(1e-3, 1, 50))), compute_uv=False)
    assert np.abs(values - 1).max() <= 0.1135


ENDLESS = {
    "a tower": "9**9**9**9",
    "a tower under x": "x + 2**2**2**2**2**2",
    "a shift": "1 << 10**12",
    "many digits": "1" * 5000,
    "deep": "(" * 300 + "x" + ")" * 300,
    "deeper": "-" * 100_000 + "x",
    "a long sum": "x" + "+x" * 20_000,
    "zero": "1/0",
    "an output argument": "exp(x, x)",
    "one argument of two": "maximum(x)",
    "a function that is not called": "exp",
    "a number that is called": "x(x)",
    "not a number": "True",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_what_would_never_end_or_is_no_function_is_refused_at_once(text):
    with pytest.raises(ValueError, match="design:"):
        function(text)(np.linspace(0, 1, 3))


def test_numbers_are_doubles_and_the_same_function():
    x = np.linspace(0.5, 2, 7)
    np.testing.assert_array_equal(function("3*x**2 - 1/x^3 + where(x > 1, 2, 0)")(x), 3 * x**2 - x**-3.0 + 2 * (x > 1))


HOLD = """
import sys
from pathlib import Path
from spectrain.train._run import claim as _claim
with _claim.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("words", [[], ["minimax", "--f", "exp(x)", "--powers", "3"]], ids=["sign", "minimax"])
def test_two_designs_at_once_do_not_share_a_folder(words, tmp_path):
    """Both wrote their files one by one, and each said that the design was its own."""
    folder = tmp_path / "design"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        holder.stdout.readline()
        with pytest.raises(OSError, match=f"in use by process {holder.pid} on"):
            main([*words, "--out", str(folder)])
        assert not [path for path in folder.iterdir() if path.name != ".lock"]
    finally:
        holder.communicate("\n")
    assert main([*words, "--out", str(folder)]) == 0
    assert {path.suffix for path in folder.iterdir()} == {".json", ".html", ".svg", ".py"}


def test_the_list_of_recipes_needs_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "design").write_text("a file")
    assert main(["recipe"]) == 0
    assert "error" in capsys.readouterr().out
