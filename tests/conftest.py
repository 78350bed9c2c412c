"""One seed, one dtype, two sizes: what every test starts from. Does not import spectrain."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the large version of every suite")


@pytest.fixture
def full(request):
    """Whether the large version of a suite was asked for."""
    return request.config.getoption("--full")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason="a large suite: run with --full")
        for item in items:
            if item.get_closest_marker("full"):  # not item.keywords: it holds the ids of parameters too
                item.add_marker(skip)
