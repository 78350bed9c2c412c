"""What somebody does who wants the optimizer and nothing else: it runs without the packages of any extra.

Run by itself in an environment that holds the wheel, and by ``test_package.py`` with those packages hidden.
"""

import sys

import torch

from spectrain import matfun, optim
from spectrain._extras import EXTRAS

model = torch.nn.Linear(6, 4)
before = model.weight.detach().clone()
optimizer = optim.Muon(model, lr=0.1, weight_decay=0.0)
model(torch.ones(1, 6)).sum().backward()
optimizer.step()
change = before - model.weight.detach()
# The gradient has rank one, so its msign is ones / sqrt(24); momentum does not turn it.
assert torch.allclose(change / change.mean(), torch.ones(4, 6), rtol=0.02), change
x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
U, _, V = torch.linalg.svd(x, full_matrices=False)
torch.testing.assert_close(matfun.msign(x, tol=1e-5), U @ V)
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & set(EXTRAS), loaded & set(EXTRAS)
print("a step of Muon, and msign to a tolerance, by torch, numpy and flint")
