"""Pictures: well-formed SVG and HTML that stands alone, for every étude; found by glob, without torch."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from spectrain import gallery
from spectrain._drawing import Line, Picture, html, save, svg

ETUDES = sorted(gallery.etudes())
SVG = "{http://www.w3.org/2000/svg}"
CURVE = Picture("a < b & c", "x", "y", (Line([0, 1, 2], [1, 3, 2], name="one"), Line([0, 2], [1, 1], style="dash")))


def points(line):
    return np.array([[float(v) for v in pair.split(",")] for pair in line.get("points").split()])


@pytest.mark.parametrize("name", ETUDES)
def test_every_etude_draws_an_svg_and_a_page(name):
    text, picture = getattr(gallery, name).Show()()
    root = ET.fromstring(svg(picture))
    assert text
    assert root.tag == SVG + "svg"
    assert len(root.findall(f".//{SVG}polyline")) + len(root.findall(f".//{SVG}circle")) > 0
    page = html(picture)
    holds = {word: word in page for word in ("<title>", "Plotly.newPlot", "<script src=", "<link ")}
    assert list(holds.values()) == [True, True, False, False], holds


def test_the_svg_shows_the_data_where_it_is():
    lines = ET.fromstring(svg(CURVE)).findall(f".//{SVG}polyline")
    first, second = points(lines[0]), points(lines[1])
    assert np.all(np.diff(first[:, 0]) > 0)
    assert first[1, 1] < first[2, 1] < first[0, 1] == second[0, 1] == second[1, 1]
    np.testing.assert_allclose((first[0, 1] - first[2, 1]) / (first[0, 1] - first[1, 1]), 0.5, atol=1e-3)


def test_equal_scales_keep_a_circle_round():
    t = np.linspace(0, 2 * np.pi, 100)
    shape = points(
        ET.fromstring(svg(Picture("", "", "", (Line(np.cos(t), np.sin(t)),), equal=True))).find(f".//{SVG}polyline")
    )
    width, height = np.ptp(shape, axis=0)
    assert abs(width - height) < 0.5


def test_logarithmic_axes_are_straight_for_powers():
    x = np.logspace(0, 4, 9)
    shape = points(ET.fromstring(svg(Picture("", "", "", (Line(x, x**3),), log="xy"))).find(f".//{SVG}polyline"))
    np.testing.assert_allclose(np.diff(shape[:, 1]), np.diff(shape[:, 1])[0], atol=0.21)


def test_one_point_and_equal_values_can_be_drawn():
    for line in (Line([1.0], [2.0], style="marks"), Line([0, 1], [5, 5])):
        drawn = svg(Picture("", "", "", (line,)))
        assert ET.fromstring(drawn).tag == f"{SVG}svg"
        assert "nan" not in drawn


def test_only_svg_and_html_are_written(tmp_path):
    save(CURVE, tmp_path / "a.svg")
    save(CURVE, tmp_path / "a.html")
    assert (tmp_path / "a.svg").stat().st_size < 10_000
    with pytest.raises(ValueError, match="svg"):
        save(CURVE, tmp_path / "a.png")


def test_drawing_lives_in_one_place():
    package = Path(gallery.__file__).parents[1]
    drawn = [package / "_drawing.py", *(package / "gallery").glob("*.py"), *(package / "cli").glob("*.py")]
    using = {file.name for file in drawn if "import plotly" in file.read_text(encoding="utf-8")}
    assert using == {"_drawing.py"}


def test_etudes_are_found_and_their_files_are_small():
    folder = Path(gallery.__file__).parent
    assert set(ETUDES) == {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    assert dir(gallery) == sorted(["etudes", *ETUDES])
    for name, first in gallery.etudes().items():
        assert first.endswith((".", "?")), name
    with pytest.raises(AttributeError, match="it has"):
        gallery.astrology  # noqa: B018


def test_no_etude_imports_torch_and_none_plotly_before_it_draws():
    code = (
        "import sys; from spectrain import gallery; [getattr(gallery, n).Show()() for n in gallery.etudes()];"
        "assert 'torch' not in sys.modules and 'plotly' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ETUDES)
def test_every_etude_has_its_page_with_a_picture(name):
    docs = Path(__file__).parents[2] / "docs" / "gallery"
    page = (docs / f"{name}.md").read_text(encoding="utf-8")
    assert f"({name}.svg)" in page
    assert "```python" in page
    assert (docs / f"{name}.svg").stat().st_size < 100_000
    ET.parse(docs / f"{name}.svg")
