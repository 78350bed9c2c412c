"""The web site as its reader meets it: both languages, every public name, search, no table cut off."""

import functools
import html
import http.server
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-dev-shm-usage", "--enable-logging=stderr", "--window-size=1400,2000", "--dump-dom",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
LAYERS = ("approx", "matfun", "lowrank", "nn", "optim", "objectives", "data", "train", "report", "testing")
FOR_MAINTAINERS = ("architecture", "names", "decisions", "complaints", "log")

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "mkdocstrings", "mkdocs_static_i18n")),
    reason="mkdocs and its plugins are not installed: pip install -e '.[docs]'",
)
pytestmark = needs_mkdocs


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with --strict, which ends at a link that leads nowhere and at a page that no navigation has."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def read(path):
    return path.read_text(encoding="utf-8")


def test_every_page_is_there_in_both_languages_and_leads_to_the_other(site):
    english = {path.relative_to(site) for path in site.rglob("*.html") if "zh" not in path.relative_to(site).parts}
    chinese = {path.relative_to(site / "zh") for path in (site / "zh").rglob("*.html")}
    assert len(english) > 50
    assert {page for page in english if page.name != "404.html"} == {p for p in chinese if p.name != "404.html"}
    for page, language in ((site / "muon.html", "en"), (site / "zh/muon.html", "zh")):
        text = read(page)
        assert f'<html lang="{language}"' in text
        assert {"en", "zh"} <= set(re.findall(r'<a[^>]* hreflang="(\w+)"', text))


def test_every_public_name_is_in_the_reference_with_its_call(site):
    for layer in LAYERS:
        page, place = read(site / "api" / f"{layer}.html"), importlib.import_module(f"spectrain.{layer}")
        shown = html.unescape(re.sub(r"<[^>]+>", "", page))
        for name in dir(place):
            assert f"{layer}.{name}" in shown, f"{layer}.{name}"
            room = importlib.util.find_spec(f"spectrain.{layer}.{name}") is not None
            called = room or name.endswith("Error") or re.search(rf"\b{name}\b\s*[(:=]", shown)
            assert called, f"no call of {layer}.{name}"


def test_nothing_is_left_of_what_a_hook_replaces(site):
    pages = {path: read(path) for path in site.rglob("*.html")}
    for path, text in pages.items():
        assert "[[names of" not in text, path
        assert "arithmatex" not in text, path
        body = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", text, flags=re.DOTALL)
        assert ":func:" not in body, path
        assert "&gt;&gt;&gt;" not in body, path
    assert "<math" in pages[site / "tutorials/msign.html"]
    assert "https://kexue.fm/archives/10739" in pages[site / "api/optim.html"]


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//', read(path))
        styles = re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//', read(path))
        assert not loaded, path
        assert not styles, path


def test_search_knows_both_languages_and_not_what_is_for_maintainers(site):
    found = json.loads(read(site / "search/search_index.json"))
    assert {"en", "zh"} <= set(found["config"]["lang"])
    places = {entry["location"].partition("#")[0] for entry in found["docs"]}
    assert {"muon.html", "zh/muon.html", "api/optim.html", "tutorials/muon.html"} <= places
    assert not {f"{name}.html" for name in FOR_MAINTAINERS} & places


def test_search_takes_chinese_text_word_by_word(site):
    """A compound typed without a space is searched by its words, which the index has to know one by one."""
    found = json.loads(read(site / "search/search_index.json"))
    titles = {entry["location"]: re.split(found["config"]["separator"], entry["title"]) for entry in found["docs"]}
    assert {"权重", "衰减"} <= set(titles["zh/weight-decay.html"])
    assert {"注意力", "MHA", "MLA"} <= set(titles["zh/attention.html"])
    assert {"weight", "decay"} <= {word.lower() for word in titles["weight-decay.html"]}


def test_a_page_in_no_navigation_and_a_dead_link_end_the_build(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "spectrain", tmp_path / "spectrain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs/tutorials/msign.md").write_text("# x\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    (tmp_path / "docs/stray.md").write_text("# Stray\n", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "nowhere.md" in said
    assert "stray.md" in said


class Served(http.server.ThreadingHTTPServer):
    """The site on a port of this machine. A picture that no page has comes when a page has said what it found."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.said, self.found = threading.Event(), []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files; what a page posts; and the picture."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.said.set()
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        if self.path != "/when-found.png":
            return super().do_GET()
        self.server.said.wait(300)
        return self.send_error(404)


@pytest.fixture
def served(site):
    with Served(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.said.set()
        server.shutdown()


def opened(url, profile, *flags):
    """The page's elements after its scripts ran, and what the console said."""
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", url]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


TELL = """<script>new MutationObserver(() => {
  const links = [...document.querySelectorAll(".md-search-result__link")].map(link => link.getAttribute("href"));
  if (links.length) fetch("/when-found", {method: "POST", body: JSON.stringify(links)});
}).observe(document.documentElement, {subtree: true, childList: true});</script>
<img src="/when-found.png"></body>"""
"""Search runs in a worker, which no virtual time waits for: the page is not loaded before the picture has come."""
MEASURE = """<script>addEventListener("load", () => {
  const tables = [...document.querySelectorAll(".md-typeset table")];
  const wide = tables.filter(table => table.scrollWidth > table.parentElement.clientWidth);
  document.body.dataset.wide = wide.length + " of " + tables.length;
});</script></body>"""


def altered(page, tail):
    """A copy of the page beside it, with more before its end."""
    copy = page.with_name(f"altered-{page.name}")
    copy.write_text(read(page).replace("</body>", tail), encoding="utf-8")
    return copy


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium")
@pytest.mark.parametrize("page", ["index.html", "zh/index.html"])
def test_the_front_page_says_nothing_on_the_console_and_no_table_is_cut_off(site, served, tmp_path, page):
    copy = altered(site / page, MEASURE)
    dom, console = opened(f"{served.address}/{copy.relative_to(site)}", tmp_path, "--virtual-time-budget=60000")
    copy.unlink()
    assert console == []
    assert re.search(r'data-wide="0 of [1-9]', dom)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium")
@pytest.mark.parametrize(
    ("start", "word", "page"),
    [
        ("index.html", "msign", "msign.html"),
        ("zh/index.html", "权重", "zh/"),
        ("zh/index.html", "权重衰减", "zh/weight-decay.html"),
        ("zh/index.html", "负载均衡", "zh/moe-balance.html"),
    ],
)
def test_search_finds(site, served, tmp_path, start, word, page):
    copy = altered(site / start, TELL)
    opened(f"{served.address}/{copy.relative_to(site)}?q={urllib.parse.quote(word)}", tmp_path)
    copy.unlink()
    assert any(page in link for link in served.found), served.found
