"""The cache: the same schedule back, whole under concurrent writers, harmless when broken."""

import multiprocessing

import pytest

from spectrain.approx import sign_schedule
from spectrain.approx._schedules.cache import cache_folder, recall

SCHEDULE = sign_schedule(0.1, steps=3)


def write_many(folder):
    for _ in range(50):
        assert recall("key", lambda: SCHEDULE, folder=folder) == SCHEDULE
        for path in folder.glob("*.json"):
            path.unlink(missing_ok=True)


def test_the_second_call_reads(tmp_path):
    assert recall("key", lambda: SCHEDULE, folder=tmp_path) == SCHEDULE
    assert recall("key", lambda: pytest.fail("computed again"), folder=tmp_path) == SCHEDULE
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", '{"polynomials": []}', "[1, 2]"])
def test_a_broken_file_is_computed_again(tmp_path, content):
    recall("key", lambda: SCHEDULE, folder=tmp_path)
    path = next(tmp_path.iterdir())
    path.write_text(content)
    assert recall("key", lambda: SCHEDULE, folder=tmp_path) == SCHEDULE
    assert path.read_text() == SCHEDULE.to_json()


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert recall("key", lambda: SCHEDULE, folder=blocked / "sub") == SCHEDULE


def test_concurrent_writers_and_removers_see_whole_files(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(tmp_path,)) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0] * 4
    assert not list(tmp_path.glob("*.tmp"))


def test_the_folder_follows_the_user(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "spectrain" / "schedules"
    sign_schedule(0.2, steps=3, dtype="bfloat16")
    assert len(list(cache_folder().iterdir())) == 1
