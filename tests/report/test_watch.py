"""The report that is served while a run goes on: to this machine alone, and again when the run has written."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from spectrain import report
from spectrain.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def watching(*runs, kind=report.Watch, **options):
    with kind(list(runs), port=0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def run(make_run, tmp_path):
    return make_run(tmp_path / "run", steps=4, every=2)


def write_a_step(run):
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "step", "step": 99, "tokens": 99, "loss": 1.234, "seconds": 9.0}) + "\n")


def test_the_report_is_that_of_the_files_now(run, tmp_path):
    with watching(run) as server:
        state = get(server, "/state")[1]
        assert get(server, "/report") == (200, report.write([run], out=tmp_path / "page.html").read_text())
        assert get(server, "/state")[1] == state, "to look changes nothing"
        write_a_step(run)
        assert get(server, "/state")[1] != state
        page = get(server, "/report?again")[1]
        assert page == report.write([run], out=tmp_path / "page.html").read_text()
        assert "1.234" in page


def test_it_is_made_once_for_each_state(run, monkeypatch):
    from spectrain.report import _watch

    made = []
    monkeypatch.setattr(_watch, "render", lambda runs: made.append(runs) or "page")
    with watching(run) as server:
        for _ in range(3):
            assert get(server, "/report") == (200, "page")
        assert len(made) == 1
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / "manifest.json").write_text("{}")
        (run / "report.html").write_text("written beside")
        get(server, "/report")
        assert len(made) == 1
        write_a_step(run)
        get(server, "/report")
        assert len(made) == 2


def test_it_is_for_this_machine_alone(run):
    with watching(run) as server:
        assert server.server_address[0] == "127.0.0.1"
        for host in ("elsewhere.example", f"elsewhere.example:{server.port}", "127.0.0.1", ""):
            assert get(server, "/report", host=host)[0] == 403
        assert get(server, "/state", host=f"localhost:{server.port}")[0] == 200
        for path in ("/config.json", "/../config.json", "/report/"):
            assert get(server, path)[0] == 404
        assert get(server, "/", method="POST")[0] == 501
        frame = get(server, "/")[1]
        assert "default-src 'none'; connect-src 'self'" in frame


def test_a_folder_that_goes_is_an_answer_and_not_the_end(run):
    with watching(run) as server:
        assert get(server, "/report")[0] == 200
        moved = run.rename(run.with_name("moved"))
        assert get(server, "/report")[0] == 500
        moved.rename(run)
        assert get(server, "/report")[0] == 200


def test_what_cannot_be_watched_is_refused(run, tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["watch", str(run), "--port", str(port)]) == 2
        error = capsys.readouterr().err
        assert f"port {port} of 127.0.0.1 is in use; give another --port, or 0 for any" in error
        assert error.count("\n") == 1
    for words, message in (
        (["watch"], "at least one run folder"),
        (["watch", str(tmp_path / "none")], "none"),
        (["watch", str(run), "--port", "70000"], "port must be from 0 to 65,535"),
        (["watch", str(run), "--every", "0"], "every must be from 0.1"),
        (["watch", str(run), "--every", "nan"], "every must be from 0.1"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_ctrl_c_ends_it_and_is_no_error(run):
    process = subprocess.Popen(
        [sys.executable, "-m", "spectrain", "watch", str(run), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    url = re.match(r"watching at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", process.stdout.readline())[1]
    assert url
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium")
def test_a_browser_shows_it_again_when_the_run_has_written(run, tmp_path):
    asked = []

    class Writing(report.Watch):
        def answer(self, path):
            asked.append(path)
            if asked.count("/report") == 1 and path == "/report":
                write_a_step(run)
            return super().answer(path)

    with watching(run, kind=Writing, every=1.0) as server:
        before = server.state()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--enable-logging=stderr", "--virtual-time-budget=30000",
                 "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}", server.url]  # fmt: skip
        done = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, timeout=600, check=True)
        after = server.state()
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert before != after
    assert f'src="/report?{after}"' in done.stdout
    assert asked[:3] == ["/", "/state", "/report"]
    assert asked.count("/report") == 2, "once for each state"
    assert asked.count("/state") > 2
