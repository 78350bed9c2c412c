import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import torch

from spectrain import data

PAIRS_THAT_MUST_DIFFER = [
    ((0,), (1,)),
    ((0,), (2**32,)),
    ((1,), (1 + 2**32,)),
    ((1,), (-1,)),
    ((0, 1), (1, 0)),
    ((0, 1, 2), (0, 12)),
    ((0, "a", "b"), (0, "ab")),
    ((0, "a,b"), (0, "a", "b")),
    ((0, "'a', 'b'"), (0, "a", "b")),
    ((0, "1"), (0, 1)),
    ((0,), (0, 0)),
    ((0, "x"), (0, "x", "")),
    ((0, 10**30), (0, 10**30 + 2**64)),
]


def check_streams(generator):
    """Equal keys give equal streams; the keys that tempt a lazy scheme give different ones."""
    for one, other in PAIRS_THAT_MUST_DIFFER:
        assert torch.equal(draw(generator(*one)), draw(generator(*one)))
        assert not torch.equal(draw(generator(*one)), draw(generator(*other))), f"{one} and {other}"


def draw(generator):
    return torch.randint(2**62, (8,), generator=generator)


def test_streams_are_told_apart():
    check_streams(data.streams.generator)


def manual_seed(number):
    return torch.Generator().manual_seed(number % 2**63)


WRONG = {
    "sum of keys": lambda *keys: manual_seed(sum(k if isinstance(k, int) else len(k) for k in keys)),
    "joined": lambda *keys: manual_seed(int.from_bytes("".join(map(str, keys)).encode(), "little")),
    "seed only": lambda seed, *keys: manual_seed(seed),
    "64-bit seed of torch": lambda *keys: manual_seed(keys[0]) if len(keys) == 1 else data.streams.generator(*keys),
    "global": lambda *keys: torch.default_generator,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_schemes(wrong):
    with pytest.raises(AssertionError):
        check_streams(wrong)


def test_torch_keeps_only_32_bits_of_a_seed():
    """Why the state is filled from the hash. When this fails, ``generator`` may become simpler."""
    assert torch.equal(draw(manual_seed(1)), draw(manual_seed(1 + 2**32)))


def test_the_whole_state_is_the_hash_and_torch_reads_it_as_the_mersenne_twister_does():
    """NumPy's MT19937 with the same 624 words must give the same 32-bit outputs."""
    generator = data.streams.generator(3, "check")
    words = generator.get_state()[24 : 24 + 8 * 624].view(torch.int64).numpy()
    assert len(set(words.tolist())) > 620
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words.astype(np.uint32), "pos": 624}}
    outputs = torch.randint(2**32, (1000,), generator=generator)
    expected = twister.random_raw(2000)
    # torch takes 64 bits for ranges of 2**32 and more, in pairs of outputs; the low word decides.
    low, high = expected[1::2], expected[0::2]
    assert outputs.tolist() in (low.tolist(), high.tolist())


def test_many_streams_are_unlike_each_other():
    """Means and correlations of 400 streams: bounds of five standard deviations of the fair case."""
    x = torch.stack(
        [torch.rand(500, generator=data.streams.generator(0, "x", i), dtype=torch.float64) for i in range(400)]
    )
    z = (x - 0.5) * 12**0.5
    assert float(z.mean(1).abs().max()) < 5 / 500**0.5
    assert float(z.mean(0).abs().max()) < 5 / 400**0.5
    correlation = z @ z.mT / 500 - torch.diag((z * z).mean(1))
    assert float(correlation.abs().max()) < 6 / 500**0.5


def test_no_two_of_many_streams_are_equal(full):
    """With 32-bit seeds 200,000 streams would hold about five equal pairs."""
    count = 200_000 if full else 5_000
    firsts = {tuple(draw(data.streams.generator(0, "dropout", i)).tolist()) for i in range(count)}
    assert len(firsts) == count


def test_neither_torch_nor_numpy_is_advanced():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw(data.streams.generator(0, "x"))
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


def test_the_state_moves_to_the_global_generator():
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(data.streams.generator(0, "dropout", 4).get_state())
        mask = torch.rand(8)
    assert torch.equal(mask, torch.rand(8, generator=data.streams.generator(0, "dropout", 4)))


def test_another_process_gets_the_same_stream():
    code = "import torch; from spectrain import data; print(data.streams.generator(7, 'x', 3).initial_seed(), "
    code += "torch.randint(2**62, (8,), generator=data.streams.generator(7, 'x', 3)).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = data.streams.generator(7, "x", 3)
    assert done.stdout.strip() == f"{here.initial_seed()} {draw(here).tolist()}"


def _in_worker(index):
    return draw(data.streams.generator(0, "worker", index)).tolist()


def test_workers_of_any_kind_and_number_agree():
    """Article 6575's point: item i is a function of i, so any pool gives the same items."""
    expected = [_in_worker(i) for i in range(6)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_in_worker, range(6)) == expected


@pytest.mark.parametrize("key", [1.5, None, b"x", (1, 2)])
def test_keys_are_integers_and_strings(key):
    from spectrain.data._generator import _plain

    with pytest.raises(TypeError, match="integers or strings"):
        _plain(key)


def test_numpy_integers_are_integers():
    from spectrain.data._generator import _canonical

    assert _canonical((np.int64(3), "x", True)) == _canonical((3, "x", 1))
