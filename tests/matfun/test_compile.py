"""steps= and schedule= trace into one graph, whose results are those of eager execution.

In a process of its own: the checks of shape annotations that pytest adds cannot be traced.
"""

import subprocess
import sys

PROGRAM = """
import torch
from spectrain import approx, matfun

schedule = approx.sign_schedule(0.1, steps=3)
calls = {
    "steps": lambda X: matfun.msign(X, steps=3),
    "schedule": lambda X: matfun.msign(X, schedule=schedule),
    "bfloat16": lambda X: matfun.msign(X, steps=3, dtype=torch.bfloat16),
    "list": lambda X: matfun.msign([X, X.mT], steps=3)[1],
}
for backend in ("eager", "aot_eager"):
    for name, call in calls.items():
        torch.compiler.reset()
        compiled = torch.compile(call, backend=backend, fullgraph=True)
        for scale in (1.0, 1e-30, 1e30):
            X = scale * torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
            bound = 1e-6 if name != "bfloat16" else 0.02
            torch.testing.assert_close(compiled(X), call(X), rtol=0, atol=bound)
        assert compiled(torch.full((2, 6, 9), float("nan"))).isnan().all(), name
        assert not compiled(torch.zeros(2, 6, 9)).any(), name
        print(backend, name)
"""


def test_one_graph_equal_to_eager():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 8
