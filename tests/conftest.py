"""One seed, one dtype, two sizes: what every test starts from. Imports nothing of spectrain that is checked."""

import collections
import subprocess
import sys

import pytest

LARGE = "a large suite: run with --full"


def pytest_configure():
    from spectrain._spinning import limit_spinning

    limit_spinning()  # before torch loads


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the large version of every suite")


@pytest.fixture
def full(request):
    """Whether the large version of a suite was asked for."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def printed_by_ranks(tmp_path_factory):
    """Run a program once a rank, with rank, world, file of the store and more as arguments; what each rank printed."""

    def run(program, world, *arguments):
        store = str(tmp_path_factory.mktemp("ranks") / "store")
        command = [sys.executable, "-W", "ignore", "-c", program]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), str(world), store, *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        try:
            answers = [process.communicate(timeout=300) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        assert all(process.returncode == 0 for process in ranks), answers
        return [out for out, _ in answers]

    return run


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason=LARGE)
        for item in items:
            if item.get_closest_marker("full"):  # not item.keywords: it holds the ids of parameters too
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """Say what this machine could not test, as Parquet where pyarrow is missing: a skip is not a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(r.longrepr[-1].removeprefix("Skipped: ") for r in skipped)
    for reason, count in sorted(reasons.items()):
        if reason != LARGE:
            terminalreporter.write_line(f"not tested here ({count}): {reason}")
