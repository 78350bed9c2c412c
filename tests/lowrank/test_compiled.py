"""Under torch.compile the factorizations are those of eager execution, complex included.

In a process of its own: the checks of shapes that pytest adds cannot be traced.
"""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from spectrain import lowrank

def svd(X):
    found = lowrank.svd(X, rank=3)
    return *found, found.error

calls = {
    "svd": svd,
    "interpolative": lambda X: (lowrank.interpolative(X, rtol=0.3).dense(),),
    "cur": lambda X: (*lowrank.cur(X, rank=3), lowrank.cur(X, rank=2, core="cross").error),
    "select_columns": lambda X: (X.take_along_dim(lowrank.select_columns(X, 3)[..., None, :], -1),),
    "pinv": lambda X: (lowrank.pinv(X, rtol=1e-5),),
}
wrong = {
    "twice the matrix": lambda A: 2 * A,
    "the items of the batch exchanged": lambda A: A.flip(0),
    "an entry a thousandth larger": lambda A: A * (1 + 0.001 * torch.eye(7, 5)),
    "the conjugate": lambda A: A.conj().resolve_conj(),
}

def equal(got, want):
    bound = 100 * torch.finfo(A.dtype).eps
    pairs = zip(got, want, strict=True)
    return all(x.dtype == y.dtype and bool((x - y).abs().max() <= bound * y.abs().max()) for x, y in pairs)

dtype = getattr(torch, sys.argv[1])
names = sys.argv[2:] or [*calls, "gradient"]
A = torch.randn(2, 7, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
for name, call in calls.items():
    if name not in names:
        continue
    torch.compiler.reset()
    compiled, want = torch.compile(call, backend="aot_eager"), call(A)
    assert equal(compiled(A), want), name
    assert equal(compiled(A * 1e12), call(A * 1e12)), name + ", large"
    for key, spoil in wrong.items():
        if dtype.is_complex or key != "the conjugate":
            assert not equal(compiled(spoil(A)), want), (name, key)
    print(name)

if "gradient" in names:
    loss = lambda X: lowrank.interpolative(X, rank=3).Z.abs().sum()
    torch.compiler.reset()
    X = A.clone().requires_grad_()
    slopes = [torch.autograd.grad(f(X), X) for f in (torch.compile(loss, backend="aot_eager"), loss)]
    assert equal(*slopes), "the gradient"
    print("gradient")
"""


# Tracing takes seconds a function: by default each goes once, and so do real and complex ones.
QUICK = {"float32": ("svd", "cur", "gradient"), "complex64": ("interpolative", "select_columns", "pinv")}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.full), "complex64"])
def test_compiled_they_are_the_same(dtype, full):
    run = [sys.executable, "-c", PROGRAM, dtype, *(() if full else QUICK[dtype])]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == (6 if full else 3)
