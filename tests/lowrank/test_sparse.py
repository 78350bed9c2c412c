"""Sparse matrices are never made dense: the largest tensor of a factorization is far below m n."""

import pytest
import scipy.sparse
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain import lowrank

SIZE = 3000


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.numbers = max(self.numbers, tensor.numel())
        return made


def few_entries():
    """A semidefinite matrix of 40 directions that live on few places each."""
    B = scipy.sparse.random(SIZE, 40, 0.01, random_state=0, format="csr")
    B = B @ scipy.sparse.diags_array(2.0 ** -torch.arange(40).numpy())
    return (B @ B.T).tocsr(), torch.from_numpy((B.T @ B).toarray())


CALLS = {
    "svd": lambda A: lowrank.svd(A, rank=8),
    "svd to a tolerance": lambda A: lowrank.svd(A, rtol=1e-2),
    "interpolative": lambda A: lowrank.interpolative(A, rank=8),
    "interpolative rows": lambda A: lowrank.interpolative(A, rank=8, axis="rows"),
    "nystrom": lambda A: lowrank.nystrom(A, rank=8),
}


def as_torch_csr(A):
    A = A.sorted_indices()
    parts = (torch.from_numpy(part) for part in (A.indptr, A.indices, A.data))
    return torch.sparse_csr_tensor(*parts, size=A.shape, check_invariants=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", [lambda A: A, as_torch_csr], ids=["SciPy", "torch"])
@pytest.mark.parametrize("name", CALLS)
def test_no_dense_copy(name, kind):
    """A quarter of m n is allowed: the rows that nystrom looks at come a few at a time."""
    A, inner = few_entries()
    with Largest() as largest:
        found = CALLS[name](kind(A))
    assert largest.numbers < SIZE * SIZE // 4
    rest = torch.linalg.eigvalsh(inner).flip(0)[int(found.rank) :]
    assert float(found.error) >= float(rest.square().sum().sqrt()) * (1 - 1e-6)  # no error is below the best


@pytest.mark.parametrize("call", [lambda A: A.to_dense(), lambda A: lowrank.svd(A.to_dense(), rank=8)])
def test_a_dense_copy_would_have_been_seen(call):
    A = as_torch_csr(few_entries()[0]).to_sparse_coo()
    with Largest() as largest:
        call(A)
    assert largest.numbers >= SIZE * SIZE
