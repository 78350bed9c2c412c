"""The bar of a notebook: drawn in place, with the time left, and only where there is a kernel."""

import sys
import types

import pytest

from spectrain.train._run.notebook import NotebookBar, line
from spectrain.train._run.progress import Progress


class Shown:
    def __init__(self):
        self.pages = []

    def display(self, page, *, raw, display_id):
        assert raw
        assert display_id
        self.pages.append(page)
        return self

    def update(self, page, *, raw):
        assert raw
        self.pages.append(page)


@pytest.fixture
def shown(monkeypatch):
    """What is shown where IPython runs as the kernel of a notebook."""
    found, shell = Shown(), types.SimpleNamespace(kernel=object())
    core = types.ModuleType("IPython")
    core.get_ipython = lambda: shell
    core.display = types.ModuleType("IPython.display")
    core.display.display = found.display
    monkeypatch.setitem(sys.modules, "IPython", core)
    monkeypatch.setitem(sys.modules, "IPython.display", core.display)
    found.shell = shell
    return found


def test_a_bar_is_drawn_in_place_with_the_time_left_and_not_at_each_step(shown):
    times = iter([0.0, 10.0, 10.1, 12.0, 14.0])
    bar = NotebookBar(clock=lambda: next(times))
    for step in (3, 4, 5, 7):  # a run that went on after step 2
        bar.step(step, 7, "loss <1>")
    said = [page["text/plain"] for page in shown.pages]
    assert said == ["3/7  loss <1>", "5/7  0:02 left  loss <1>", "7/7  0:00 left  loss <1>"]
    assert '<progress value="5" max="7">' in shown.pages[1]["text/html"]
    assert "loss &lt;1&gt;" in shown.pages[1]["text/html"]
    assert line(3, None, None, "") == "3/?  "


def test_a_run_in_a_notebook_draws_it_and_prints_what_stays(shown, capsys):
    with Progress() as progress:
        progress.say("run folder: x")
        progress.step(1, 2, "loss 1.0")
    assert capsys.readouterr().out == "run folder: x\n"
    assert [page["text/plain"] for page in shown.pages] == ["1/2  loss 1.0"]


def test_a_stream_and_a_shell_without_a_kernel_get_plain_lines(shown, capsys, tmp_path):
    with open(tmp_path / "run.log", "w", encoding="utf-8") as stream:
        Progress(stream=stream).step(1, 2, "loss 1.0")
    assert (tmp_path / "run.log").read_text(encoding="utf-8") == "step 1/2  loss 1.0\n"
    shown.shell.kernel = None  # IPython in a terminal whose output goes to a file
    Progress().step(1, 2, "loss 1.0")
    assert capsys.readouterr().out == "step 1/2  loss 1.0\n"
    assert shown.pages == []
