"""The bar of a run in a real notebook: a kernel of IPython's, and what the cell holds when it is done."""

import warnings

import pytest

CELL = """
from spectrain.train.runs import Progress

with Progress() as progress:
    progress.say("run folder: x")
    for step in range(1, 4):
        progress.step(step, 3, f"loss <{4 - step}>")
"""


def executed(cell):
    """What a notebook shows below a cell."""
    for name in ("ipykernel", "nbclient"):
        pytest.importorskip(name, reason=f"{name} is an extra: the integrations")
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    with warnings.catch_warnings():  # those of the packages are theirs
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, kernel_name="python3", timeout=900, startup_timeout=300).execute()
    return notebook.cells[0].outputs


def test_one_line_below_the_cell_is_drawn_in_place(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    said, bar = executed(CELL)
    assert (said.output_type, said.text) == ("stream", "run folder: x\n")
    assert bar.output_type == "display_data"
    assert bar.data["text/plain"] == "3/3  0:00 left  loss <1>"
    assert bar.data["text/html"].startswith('<progress value="3" max="3"></progress>')
    assert "loss &lt;1&gt;" in bar.data["text/html"]
