"""The page in a real browser, with no network: every figure drawn, nothing said on the console, nothing asked for."""

import html
import json
import re
import shutil
import subprocess

import pytest

from spectrain import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=60000",
    "--window-size=1280,2000",
    "--dump-dom",
]
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium"),
]


def opened(page, profile):
    """The page's elements after its scripts ran, and what the browser printed on the console."""
    command = [CHROMIUM, *FLAGS, OFFLINE, f"--user-data-dir={profile}", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def faults(page, profile):
    """What is wrong with a page; nothing for a good one."""
    return faults_of(*opened(page, profile))


def faults_of(dom, console):
    """What is wrong, from the browser's side (console, surfaces) and from the page's own check."""
    expected = len(json.loads(re.search(r'id="figures">(.*?)</script>', dom, re.DOTALL)[1]))
    surfaces = sum('class="main-svg"' in slot for slot in dom.split('<figure class="chart')[1:])
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body([^>]*)>", dom)[1]))
    found = [f"console: {line}" for line in console]
    if said.get("checked") != "true":
        found.append("the page did not finish its own check")
    if surfaces != expected or not expected:
        found.append(f"{surfaces} surfaces for {expected} figures")
    wanted = {"figures": str(expected), "drawn": str(expected), "errors": "0", "requests": "0"}
    found += [f"{name}: {said.get(name)}, not {count}" for name, count in wanted.items() if said.get(name) != count]
    return found


@pytest.fixture
def small_page(make_run, tmp_path):
    """The report of a run of ten steps."""
    return report.write([make_run(tmp_path / "small", steps=10, every=5)], out=tmp_path / "report.html")


def some_in_full(cases, quick):
    """The cases as parameters: ``quick`` always, the others with --full (each opens a browser)."""
    marks = {name: () if name in quick else pytest.mark.full for name in cases}
    return [pytest.param(case, id=name, marks=marks[name]) for name, case in cases.items()]


def rewritten(page, change):
    """A copy of the page with its figures changed."""
    text = page.read_text(encoding="utf-8")
    start = text.index('id="figures">') + len('id="figures">')
    stop = text.index("</script>", start)
    figures = json.loads(text[start:stop])
    change(figures)
    copy = page.with_name("changed.html")
    copy.write_text(text[:start] + json.dumps(figures).replace("<", "\\u003c") + text[stop:], encoding="utf-8")
    return copy


def first_view(figures):
    return next(iter(figures[0]["views"].values()))


def without_data(figures):
    first_view(figures)["data"] = []


def without_numbers(figures):
    first_view(figures)["data"] = [{"type": "scatter", "mode": "lines", "x": [1, 2], "y": [None, None]}]


def without_view(figures):
    figures[0]["views"] = {"0,0": None}


def with_a_wrong_layout(figures):
    first_view(figures)["layout"]["xaxis"] = None


def with_an_unknown_figure(figures):
    figures.append({**figures[0], "name": "nowhere"})


BROKEN = {
    "no traces": without_data,
    "only missing values": without_numbers,
    "no view": without_view,
    "a layout that plotly refuses": with_a_wrong_layout,
    "a figure without a place": with_an_unknown_figure,
}


def with_text(page, old, new):
    text = page.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    copy = page.with_name("changed.html")
    copy.write_text(text.replace(old, new, 1), encoding="utf-8")
    return copy


def with_an_image(page):
    return with_text(page, "<footer>", '<img src="https://example.org/pixel.png"><footer>')


def with_an_image_and_no_policy(page):
    return with_text(with_an_image(page), '<meta http-equiv="Content-Security-Policy"', "<meta")


def with_a_foreign_script(page):
    return with_text(page, "<footer>", "<script>console.log('foreign')</script><footer>")


def without_plotly(page):
    return with_text(page, "plotly.js v", "plotly.js of another version ")


TAMPERED = {
    "asks for an image": with_an_image,
    "asks for an image, no policy": with_an_image_and_no_policy,
    "a foreign script": with_a_foreign_script,
    "another plotly than the policy names": without_plotly,
}


def test_a_report_of_one_run_draws_every_figure(run_folder, tmp_path):
    page = report.write([run_folder], out=tmp_path / "report.html")
    assert faults(page, tmp_path / "profile") == []


@pytest.mark.full
def test_a_comparison_draws_every_figure_under_its_policy(comparison_folder, tmp_path):
    page = report.write([comparison_folder], out=tmp_path / "report.html")
    assert faults(page, tmp_path / "profile") == []


def test_a_killed_and_diverged_run_draws_every_figure(run_folder, tmp_path):
    for name in ("summary.json", "routing.json", "environment.json"):
        (run_folder / name).unlink()
    metrics = run_folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines()
    broken = [re.sub(r'"(loss|grad_norm|bits_per_byte)": [\d.e-]+', r'"\1": NaN', line) for line in lines[60:]]
    metrics.write_text("\n".join([*lines[:60], *broken])[:-40], encoding="utf-8")
    page = report.write([run_folder], out=tmp_path / "report.html")
    assert faults(page, tmp_path / "profile") == []


def test_hostile_text_is_shown_and_runs_nothing(run_folder, tmp_path):
    attack = '</script></pre><script>document.body.dataset.owned = "1"</script><img src=x onerror="alert(1)">'
    (run_folder / "samples.txt").write_text(f"=== {attack}\n{attack}\n", encoding="utf-8")
    config = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))
    config |= {"optimizer": attack, attack: attack, "data": [attack]}
    (run_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    metrics = run_folder / "metrics.jsonl"
    named = metrics.read_text(encoding="utf-8").replace("blocks.0.attention.query.weight", json.dumps(attack)[1:-1])
    metrics.write_text(named, encoding="utf-8")
    page = report.write([run_folder], out=tmp_path / "report.html")
    dom, console = opened(page, tmp_path / "profile")
    assert faults_of(dom, console) == []
    assert "data-owned" not in re.search(r"<body([^>]*)>", dom)[1]
    assert "<img" not in dom
    assert html.escape(attack, quote=False) in dom


CLICKS = """<script>addEventListener("load", async () => {
  const wait = () => new Promise((done) => setTimeout(done, 50));
  while (document.body.dataset.checked !== "true") await wait();
  let views = 0, empty = 0;
  const look = async (figure) => {
    await wait();
    views += 1;
    empty += !figure.querySelector(".main-svg .trace path[d], .main-svg .heatmaplayer image");
  };
  for (const figure of document.querySelectorAll("figure.chart")) {
    for (const menu of figure.querySelectorAll(".controls select"))
      for (const i of [1, 2, 0]) {
        menu.selectedIndex = i; menu.dispatchEvent(new Event("change")); await look(figure);
      }
    for (const button of figure.querySelectorAll(".controls button")) { button.click(); await look(figure); }
    for (const key of figure.querySelectorAll(".key")) { key.click(); await wait(); }
  }
  document.getElementById("theme").click(); await wait();
  Object.assign(document.body.dataset, { views, empty, after: problems.length });
});</script><footer>"""


def test_every_choice_draws_something(comparison_folder, tmp_path):
    page = report.write([comparison_folder], out=tmp_path / "report.html")
    page = with_text(page, '<meta http-equiv="Content-Security-Policy"', "<meta")
    dom, console = opened(with_text(page, "<footer>", CLICKS), tmp_path / "profile")
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body([^>]*)>", dom)[1]))
    assert faults_of(dom, console) == []
    assert int(said["views"]) >= 20
    assert (said["empty"], said["after"]) == ("0", "0")
    assert 'data-theme="' in dom


@pytest.mark.parametrize("change", some_in_full(BROKEN, {"no traces"}))
def test_the_check_rejects_broken_figures(change, small_page, tmp_path):
    assert faults(rewritten(small_page, change), tmp_path / "profile") != []


@pytest.mark.parametrize("tamper", some_in_full(TAMPERED, {"asks for an image, no policy"}))
def test_the_check_rejects_tampered_pages(tamper, small_page, tmp_path):
    assert faults(tamper(small_page), tmp_path / "profile") != []
