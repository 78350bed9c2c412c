"""The written file: self-contained, safe, whole or not at all, and a page for anything a file may hold."""

import base64
import hashlib
import html.parser
import json
import math
import os
import re

import plotly.graph_objects as go
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from spectrain import report
from spectrain.report._document import embedded, plain_figure
from spectrain.report._headline import headline, title
from spectrain.report._page import sections

COLOR = re.compile(r'"--[a-z0-9-]+(?:/([\d.]+))?"')


@pytest.fixture
def page(run_folder, tmp_path):
    return report.write([run_folder], out=tmp_path / "out" / "report.html")


def embedded_figures(page):
    return json.loads(re.search(r'id="figures">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


class Elements(html.parser.HTMLParser):
    """Elements, their attributes, and the text outside of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.found, self.words = [], ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found[-1:] and self.found[-1][0] not in ("script", "style"):
            self.words += data


def test_the_page_is_one_file_with_one_copy_of_plotly(page):
    text = page.read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    ours = text.replace(get_plotlyjs(), "")
    assert len(ours) < 1_000_000
    assert "http" not in ours.replace("http-equiv", "")
    assert not re.search(r"@import|url\(", ours)
    sources = [attrs for _, attrs in Elements(page).found if "src" in attrs or "srcset" in attrs]
    assert sources == []
    links = [attrs["href"] for _, attrs in Elements(page).found if "href" in attrs]
    assert links
    assert all(link.startswith("#") for link in links)


def test_the_policy_names_every_script_and_no_other(page):
    text = page.read_text(encoding="utf-8")
    policy = next(a["content"] for tag, a in Elements(page).found if tag == "meta" and "http-equiv" in a)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert len(digests) == 3
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_hostile_text_stays_text(run_folder, tmp_path):
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    clean = [tag for tag, _ in Elements(report.write([run_folder], out=tmp_path / "clean.html")).found]
    (run_folder / "samples.txt").write_text(f"=== {attack}\n{attack}\n=== b\nc\n", encoding="utf-8")
    for name, key in (("config.json", "seed"), ("environment.json", "python")):
        path = run_folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), key: attack}), encoding="utf-8")
    for name, known in (("routing.json", "embedding.weight"), ("metrics.jsonl", "blocks.0.mlp.up.weight")):
        path = run_folder / name
        path.write_text(path.read_text().replace(known, json.dumps(attack)[1:-1]), encoding="utf-8")
    elements = Elements(report.write([run_folder], out=tmp_path / "report.html"))
    assert [tag for tag, _ in elements.found] == clean
    assert attack in elements.words


@pytest.mark.parametrize("folder", ["run_folder", "comparison_folder"])
def test_every_view_is_a_valid_plotly_figure_with_titled_axes(folder, request):
    """plotly's own schema is the judge of traces and layouts; colours stand in for palette names."""
    root = request.getfixturevalue(folder)
    runs = [report.read(path) for path in ([root] if folder == "run_folder" else sorted(root.glob("*-*")))]
    figures = [fig for section in sections(runs, compared=[]) for fig in section.figures]
    assert len(figures) >= 12
    for fig in figures:
        for view in plain_figure(fig)["views"].values():
            assert accepted(view)
            assert view["title"]


def valid(view):
    """A plotly figure whose axes say what they show."""
    figure = go.Figure(json.loads(COLOR.sub('"#123456"', json.dumps({"data": view["data"], "layout": view["layout"]}))))
    return bool(figure.data and figure.layout.xaxis.title.text and figure.layout.yaxis.title.text)


def accepted(view):
    try:
        return valid(view)
    except ValueError:  # plotly's word for an attribute or value outside its schema
        return False


AXES = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "loss (nats)"}}}
WRONG = {
    "no traces": {"data": [], "layout": AXES},
    "an axis without a title": {"data": [{"type": "scatter"}], "layout": {**AXES, "yaxis": {}}},
    "a misspelt attribute": {"data": [{"type": "scatter", "lien": {}}], "layout": AXES},
    "a colour that is none": {"data": [{"type": "scatter", "line": {"color": "-accent"}}], "layout": AXES},
    "an unknown trace": {"data": [{"type": "curve"}], "layout": AXES},
}


@pytest.mark.parametrize("view", WRONG.values(), ids=WRONG)
def test_the_check_of_views_rejects_wrong_ones(view):
    assert not accepted(view)


def test_numbers_that_are_not_finite_become_null(run_folder, tmp_path):
    metrics = run_folder / "metrics.jsonl"
    text = metrics.read_text(encoding="utf-8").replace('"loss": ', '"loss": NaN, "was": ')
    text = text.replace('"weight": [', '"weight": [NaN, Infinity, ')
    metrics.write_text(text, encoding="utf-8")
    page = report.write([run_folder], out=tmp_path / "report.html")

    def refuse(name):
        raise AssertionError(f"{name} in the page's JSON")

    source = re.search(r'id="figures">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert json.loads(source, parse_constant=refuse)
    assert "The loss is not a finite number in 120 of 120 steps" in Elements(page).words


@pytest.mark.parametrize("value", [{"x": math.nan}, [math.inf]])
def test_embedding_refuses_what_is_not_json(value):
    with pytest.raises(ValueError, match="JSON"):
        embedded(value)


FILES = ("config", "environment", "routing", "polynomials", "summary")


@pytest.mark.parametrize("name", [*(f"{name}.json" for name in FILES), "metrics.jsonl", "samples.txt"])
def test_a_page_is_written_without_any_one_file(run_folder, tmp_path, name):
    (run_folder / name).unlink()
    page = report.write([run_folder], out=tmp_path / "report.html")
    assert f"{name} is missing." in Elements(page).words


def test_a_page_is_written_from_a_summary_alone(tmp_path):
    (tmp_path / "summary.json").write_text('{"bits_per_byte": 1.5}', encoding="utf-8")
    page = report.write([tmp_path], out=tmp_path)
    assert page == tmp_path / "report.html"
    assert "1.5 bits per byte" in Elements(page).words
    assert embedded_figures(page) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ODD = {
    "config.json": "optimizer lr depth width data",
    "summary.json": "bits_per_byte xz_bits_per_byte tokens seconds optimizer_share parameters",
    "routing.json": "name shape matrix algorithm lr_factor",
    "metrics.jsonl": "step tokens seconds loss lr grad_norm step_seconds name quantiles weight update_to_weight",
    "polynomials.json": "interval error products powers coefficients curve reference steps name",
}


def spoil(value, key, odd):
    """The JSON value with every ``key`` in it holding ``odd``."""
    if isinstance(value, dict):
        return {k: odd if k == key else spoil(v, key, odd) for k, v in value.items()}
    return [spoil(item, key, odd) for item in value] if isinstance(value, list) else value


ONE_FOLDER = [HealthCheck.function_scoped_fixture]  # each example puts back the file that it spoils
NO_SHRINKING = (Phase.reuse, Phase.generate)  # the examples are small as drawn, and each costs a page


@settings(max_examples=25, deadline=None, suppress_health_check=ONE_FOLDER, phases=NO_SHRINKING)
@given(data=st.data())
def test_any_value_in_any_place_gives_a_page(make_run, tmp_path, data):
    spoiled_page(make_run, tmp_path / "run", data)


@pytest.mark.full
@settings(max_examples=150, deadline=None, suppress_health_check=ONE_FOLDER, phases=NO_SHRINKING)
@given(data=st.data())
def test_any_value_in_any_place_gives_a_page_many_times(make_run, tmp_path, data):
    spoiled_page(make_run, tmp_path / "run", data)


def spoiled_page(make_run, folder, data):
    """Everything of the page but plotly.js, from a run with one key of one file spoiled."""
    if not folder.exists():
        make_run(folder, steps=4, every=2)
    name = data.draw(st.sampled_from(sorted(ODD)))
    key, odd = data.draw(st.sampled_from(ODD[name].split())), data.draw(JSON)
    path = folder / name
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines() if name == "metrics.jsonl" else [before]
    path.write_text("\n".join(json.dumps(spoil(json.loads(line), key, odd)) for line in lines), encoding="utf-8")
    try:
        run = report.read(folder)
        parts = sections([run], compared=[])
        assert parts
        assert title([run])
        assert headline([run])
        assert embedded([plain_figure(fig) for section in parts for fig in section.figures])
    finally:
        path.write_text(before, encoding="utf-8")


def test_a_failed_write_leaves_the_old_page(run_folder, tmp_path, monkeypatch):
    page = report.write([run_folder], out=tmp_path / "report.html")
    before = page.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        report.write([run_folder], out=page)
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_runs_of_one_name_are_told_apart(make_run, tmp_path):
    runs = [make_run(tmp_path / parent / "default", steps=6, every=2) for parent in ("monday", "tuesday")]
    words = Elements(report.write(runs, out=tmp_path / "report.html")).words
    assert "monday/default" in words
    assert "tuesday/default" in words


def test_a_path_alone_is_refused(run_folder, tmp_path):
    with pytest.raises(Exception, match=r"list of folders|Type-check"):
        report.write(run_folder, out=tmp_path)


def test_several_runs_show_only_the_settings_that_differ(comparison_folder, tmp_path):
    text = report.write([comparison_folder], out=tmp_path / "report.html").read_text(encoding="utf-8")
    differences = re.search(r'<section id="configuration">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)[1]
    assert re.findall(r"<tr><td>(\w+)</td>", differences) == ["optimizer", "lr"]
    assert "Muon reached AdamW&#x27;s validation loss, 4.05, with 0.61 of its tokens (one seed)." in text
