"""The kernels compile for devices of capability 8.0 and 9.0, without one: what the interpreter does not see."""

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from spectrain._arrays._triton.products import MOST_SHORT

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory a program may have (CUDA C Programming Guide, table of compute capabilities)."""
FLOATS, ALWAYS_FLOATS = ("alpha", "beta"), ("STEPS", "SCALES")


@pytest.fixture
def compiled(triton, load, monkeypatch, tmp_path):
    """Compile a kernel for rows of unit stride, all else what 16 divides, as most launches find it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    def kind_of(name, dtype):
        if name.isupper():
            return f"*{'fp32' if name in ALWAYS_FLOATS else dtype}"
        return "fp32" if name in FLOATS else "i32"

    def build(kernel, dtype, capability, sizes, **options):
        names = kernel.arg_names
        fixed = sizes | {name: 1 for name in names if name.endswith(("_column", "_long"))}
        kinds = {name: "constexpr" if name in fixed else kind_of(name, dtype) for name in names}
        whole = [i for i, name in enumerate(names) if kinds[name] not in ("constexpr", "fp32")]
        source = ASTSource(kernel, kinds, constexprs=fixed, attrs={(i,): [["tt.divisibility", 16]] for i in whole})
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

    return build


def products(built):
    """What multiplies in the code: tensor cores, by the types of their instructions, or ordinary arithmetic."""
    lines = built.asm["ptx"].splitlines()
    found = {kind for kind in ("bf16", "f16", "tf32") if any("mma" in line and f".{kind}" in line for line in lines)}
    return found or {"fma" if any("fma.rn.f32" in line for line in lines) else "none"}


def stack(built, triton, tmp_path):
    """Bytes of registers that did not fit, by thread."""
    (tmp_path / "cubin").write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([tool, "-res-usage", tmp_path / "cubin"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", told)[1])


WANTED = {"bf16": {"bf16"}, "fp16": {"f16"}, "fp32": {"fma"}}
CASES = [*itertools.product(WANTED, (80, 90), (0,)), *[("bf16", 80, i) for i in (1, 2)]]


@pytest.mark.parametrize(("dtype", "capability", "tiling"), CASES)
def test_the_symmetric_kernel_compiles(load, compiled, triton, tmp_path, dtype, capability, tiling):
    kernels = load("symmetric")
    side, depth, warps, stages = kernels.TILINGS[tiling]
    sizes = {"SIDE": side, "DEPTH": depth, "ADDS": True}
    built = compiled(kernels.symmetric_tile, dtype, capability, sizes, num_warps=warps, num_stages=stages)
    assert built.metadata.shared <= SHARED[capability]
    assert products(built) == WANTED[dtype]
    assert stack(built, triton, tmp_path) == 0


@pytest.mark.parametrize(("dtype", "capability", "side"), [("bf16", 80, 16), ("bf16", 90, 32), ("fp16", 80, 32)])
def test_the_kernel_of_small_matrices_compiles(load, compiled, triton, tmp_path, dtype, capability, side):
    built = compiled(load("quintics").all_steps, dtype, capability, {"SIDE": side, "TILE": 64})
    assert built.metadata.shared <= SHARED[capability]
    assert products(built) == WANTED[dtype]  # of X X^T; on the short side float32 is not rounded to tf32
    assert stack(built, triton, tmp_path) == 0


@pytest.mark.full
def test_a_longer_short_side_would_not_fit(load, compiled, triton, tmp_path):
    kernels = load("quintics")
    assert kernels.MOST == MOST_SHORT
    assert stack(compiled(kernels.all_steps, "bf16", 90, {"SIDE": 2 * kernels.MOST, "TILE": 64}), triton, tmp_path) > 0
