"""``spectrain compress``: a table on the screen, a folder that samples, and errors in one line."""

import pytest


def test_compress_prints_its_table_and_the_folder_samples(spectrain, finished, tmp_path):
    run, _ = finished
    done = spectrain("compress", run, "--method", "id", "--params", 0.5, "--calibration-tokens", 256,
                     "--out-dir", tmp_path / "small")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("| blocks.0.feed_forward |", "linear weights", f"run folder: {tmp_path / 'small'}"):
        assert words in done.stdout
    written = spectrain("sample", tmp_path / "small", "--prompt", "line", "--tokens", 5)
    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("line")


WRONG = {
    "no size": ((), "--params"),
    "a size above one": (("--params", 1.5), "below 1"),
    "an unknown method": (("--params", 0.5, "--method", "lu"), "--method"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_wrong_calls_are_told_in_a_line(spectrain, finished, tmp_path, words, said):
    done = spectrain("compress", finished[0], *words, "--out-dir", tmp_path / "small")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
