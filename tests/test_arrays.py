"""How arrays come in: what holds a matrix of numbers is shared or copied right, every other kind is one clear line."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from spectrain import lowrank, matfun
from spectrain._arrays.finite import all_finite, refusal
from spectrain._arrays.generators import fresh_generator, repeating_generator
from spectrain._arrays.kinds import from_numpy, tensor_of, to_numpy, way_out

X = np.arange(12.0).reshape(3, 4)
GOOD = {
    "rows": X,
    "columns first": np.asfortranarray(X),
    "turned around": X[::-1, ::-1],
    "every second": np.arange(48.0).reshape(6, 8)[::2, 1::2],
    "a transpose": X.T,
    "broadcast": np.broadcast_to(np.arange(4.0), (3, 4)),
    "not aligned": np.frombuffer(b"\0" + X.tobytes(), dtype=np.uint8)[1:].view("f8").reshape(3, 4),
    "no rows": np.zeros((0, 4)),
    "no entries of a batch": np.zeros((2, 0, 4, 3)),
    "half": X.astype(np.float16),
    "complex": X + 1j * X[::-1],
    "a subclass": np.array(X).view(type("Mine", (np.ndarray,), {})),
    "read only": np.frombuffer(X.tobytes()).reshape(3, 4),
}
TRUSTED = ("float16", "float32", "float64", "complex64", "complex128")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", GOOD)
def test_arrays_of_any_strides_come_in_and_go_out_as_they_are(name):
    array = GOOD[name]
    tensor = tensor_of(array, "example")
    assert tensor is not None
    assert str(tensor.dtype).removeprefix("torch.") == array.dtype.name
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(to_numpy(tensor), array)
    np.testing.assert_array_equal(to_numpy(tensor.conj()), np.asarray(array).conj())


class Foreign:
    """An array of another library that promises DLPack."""

    def __init__(self, answer):
        self.answer = answer

    def __dlpack__(self, **options):
        raise self.answer

    def __dlpack_device__(self):
        return (1, 0)


class Halfway:
    def __dlpack__(self):
        return None


BAD = {
    "masked": (lambda: np.ma.masked_invalid(X), "mask of a masked array would be ignored"),
    "objects": (lambda: np.array([[1, None]], dtype=object), "floating ndarray"),
    "truth values": (lambda: X > 0, "floating ndarray"),
    "integers": (lambda: X.astype(int), "floating ndarray"),
    "big integers": (lambda: np.array([[2**80]]), "floating ndarray"),
    "texts": (lambda: np.array([["a"]]), "floating ndarray"),
    "dates": (lambda: np.array([["2026-01-01"]], dtype="M8[D]"), "floating ndarray"),
    "records": (lambda: np.zeros((2, 2), dtype=[("a", "f8")]), "floating ndarray"),
    "long doubles": (lambda: X.astype(np.longdouble), "floating ndarray"),
    "the other byte order": (lambda: X.astype(X.dtype.newbyteorder()), "byte order of this machine"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"dense.*\.to_dense\(\)"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), r"dense.*\.to_dense\(\)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.eye(3), torch.eye(2)]), "got a nested one; .to_padded_tensor"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), r"\.dequantize\(\)"),
    "packed": (lambda: torch.eye(3).to_mkldnn(), r"got a _mkldnn one; \.to_dense\(\)"),
    "meta": (lambda: torch.eye(3, device="meta"), "meta device has no entries"),
    "integers of torch": (lambda: torch.eye(3, dtype=torch.int8), r"got torch.int8; convert with \.double\(\)"),
    "eight bits": (lambda: torch.eye(3).to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
    "a vector": (lambda: np.ones(3), r"got shape \(3,\); a vector v is the matrix v\[:, None\]"),
    "a number": (lambda: torch.tensor(1.0), r"got shape \(\)"),
    "a broken promise": (lambda: Foreign(BufferError("not exportable")), "Foreign fails in DLPack: not exportable"),
    "half a promise": (lambda: Halfway(), "Halfway fails in DLPack"),
    "a list": (lambda: [[1.0]], "got .*"),
    "NaN": (lambda: np.full((2, 3), np.nan), r"6 of 6 entries are NaN or infinite, the first at index \(0, 0\)"),
    "an infinite entry": (lambda: torch.eye(2).index_fill(0, torch.tensor(1), torch.inf), r"first at index \(1, 0\)"),
}
DOORS = {"polar": matfun.polar, "cr": lambda A: lowrank.cr(A, A, count=1)}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:Sparse", "ignore:.*quant")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", BAD)
def test_every_other_kind_is_one_line_that_is_the_same_at_both_doors(name, door):
    make, words = BAD[name]
    with pytest.raises((TypeError, ValueError), match=words) as error:
        DOORS[door](make())
    if name != "a list":  # of matrices for one, no array for the other
        assert str(error.value).startswith(f"{door}: ")
        assert "\n" not in str(error.value)


def test_memory_is_shared_where_it_can_be_and_never_written_to():
    array = X.copy()
    assert from_numpy(array, "example").data_ptr() == array.ctypes.data
    array.flags.writeable = False
    assert from_numpy(array, "example").data_ptr() != array.ctypes.data


def test_the_count_of_entries_that_are_not_finite():
    A = torch.ones(2, 3, dtype=torch.complex64)
    assert all_finite(A)
    assert all_finite(torch.full((2, 2), 3e38))  # whose norm is not
    A[1, 2] = complex(0, float("nan"))
    assert not all_finite(A)
    assert "example: 1 of 6 entries of matrix 4 of the list are NaN or infinite, the first at index (1, 2)." in str(
        refusal(A, "example", 4)
    )


def test_none_is_seed_0_for_one_and_a_seed_of_its_own_for_the_other():
    assert repeating_generator(None, "a").initial_seed() == repeating_generator(0, "a").initial_seed() == 0
    before = torch.get_rng_state()
    assert fresh_generator(None, "a").initial_seed() != fresh_generator(None, "a").initial_seed()
    assert torch.equal(torch.get_rng_state(), before)
    for make in (repeating_generator, fresh_generator):
        given = torch.Generator()
        assert make(given, "a") is given
        assert make(2**64 - 1, "a").initial_seed() == 2**64 - 1
        for wrong, kind in ((True, TypeError), (2**64, ValueError), (-(2**70), ValueError)):
            with pytest.raises(kind, match=r"^a: "):
                make(wrong, "a")


class Other(np.ndarray):
    """An array of a library of its own, which holds 32 bits at most, as JAX does before it is told otherwise."""


class Library:
    __name__ = "other"

    @staticmethod
    def from_dlpack(tensor):
        array = tensor.numpy()
        return array.astype({"float64": "float32", "int64": "int32"}.get(array.dtype.name, array.dtype)).view(Other)


class Held:
    ndim = 2

    def __array_namespace__(self):
        return Library()


def test_results_go_back_to_the_library_that_the_matrix_came_from():
    leave = way_out(Held(), "example")
    rows = torch.arange(12.0).reshape(3, 4)
    for Y in (rows, rows.T[::2], rows[:, 0], torch.complex(rows, rows)[:2].conj(), rows.bool(), rows.long()):
        found = leave(Y)
        assert isinstance(found, Other)
        np.testing.assert_array_equal(found, Y.resolve_conj().numpy())
    assert leave(torch.tensor(3)) == 3
    assert way_out(rows, "example")(rows) is rows
    assert isinstance(way_out(np.eye(2), "example")(rows), np.ndarray)


@pytest.mark.parametrize("value", [1 + 2**-50, 1 - 2**-50, 0.1, 1 / 3, -0.1, 2.0, 0.0, 1e-60])
def test_a_number_in_fewer_digits_is_rounded_up(value):
    """What lies between two float32 numbers becomes the upper one: an error that was proven stays an error."""
    found = way_out(Held(), "example")(torch.tensor(value, dtype=torch.float64))
    assert found.dtype == np.float32
    assert float(found) >= value
    assert float(np.nextafter(found, np.float32(-np.inf))) < value


def test_a_matrix_in_fewer_digits_is_refused():
    with pytest.raises(TypeError, match=r"example: the result is of torch\.float64, and other made float32 of it"):
        way_out(Held(), "example")(torch.eye(2, dtype=torch.float64))


SPREAD = """
import sys, torch
import torch.distributed as dist
from spectrain._arrays.spread import is_spread

class Mine(torch.Tensor):
    pass

plain = torch.ones(3), torch.nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True) + 1
assert not any(map(is_spread, plain))
assert "torch.distributed.tensor" not in sys.modules
assert not is_spread(torch.ones(3).as_subclass(Mine))

from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
spread = distribute_tensor(torch.ones(4, 3), init_device_mesh("cpu", (1,)), [Shard(0)])
assert all(map(is_spread, (spread, torch.nn.Parameter(spread), spread + 1)))
assert not any(map(is_spread, (*plain, spread.to_local())))
print("all kinds")
"""


def test_a_tensor_of_several_ranks_is_known_and_a_plain_one_without_loading_their_kind():
    call = [sys.executable, "-c", SPREAD]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "all kinds\n"
