"""The report while a run goes on: served to this machine alone, made again when the run has written something."""

import base64
import errno
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path

from spectrain.report._drawing.html import text
from spectrain.report._page import folders, found_in, render

_HERE = "127.0.0.1"
_KEPT = ("checkpoints",)  # folders that a report does not read
_READ = (".json", ".jsonl", ".txt")
_STYLE = "html, body, iframe { margin: 0; border: 0; width: 100%; height: 100% } body { overflow: hidden }"


class Watch(http.server.ThreadingHTTPServer):
    """A server on 127.0.0.1 that shows the report of run folders, the newest one that there is.

    ``serve_forever()`` serves until ``shutdown()``; ``url`` is where. The page asks every ``every`` seconds whether a
    file of the runs has changed, and only then for the report, which is made once for each state of the files. It
    keeps its place when it is shown again. Requests by another name than this machine's are refused, so that no page
    of another site reads along.

    Raises ``ValueError`` for a folder that is no run and holds none, a port that is none, and ``OSError`` where the
    port is in use. Port 0 takes one that is free.

    >>> import tempfile, urllib.request
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "metrics.jsonl").write_text('{"kind": "step", "step": 1, "loss": 8.3}')
    ...     with Watch([Path(folder)], port=0) as server:
    ...         threading.Thread(target=server.serve_forever, daemon=True).start()
    ...         page = urllib.request.urlopen(server.url + "report").read().decode()
    ...         server.shutdown()
    >>> page.count("plotly.js v")
    1
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, runs: Sequence[Path], *, port: int = 6007, every: float = 5.0) -> None:
        self.given = folders(runs)
        found_in(self.given)
        if not 0 <= port < 2**16:
            raise ValueError(f"Watch: port must be from 0 to 65,535, got {port}.")
        if not 0.1 <= every <= 3600:
            raise ValueError(f"Watch: every must be from 0.1 to 3,600 seconds, got {every}.")
        self._page = _frame(every, ", ".join(run.name or str(run) for run in self.given))
        self._made: tuple[str, bytes] = ("", b"")
        self._making = threading.Lock()
        try:
            super().__init__((_HERE, port), _Answer)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            why = "in use" if error.errno == errno.EADDRINUSE else "not for this user"
            raise OSError(error.errno, f"port {port} of {_HERE} is {why}; give another --port, or 0 for any") from None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_HERE}:{self.port}/"

    def state(self) -> str:
        """A name for what the files of the runs are now."""
        seen: list[object] = []
        for folder in self.given:
            for where, inner, names in os.walk(folder):
                inner[:] = sorted(name for name in inner if name not in _KEPT and not name.startswith("."))
                seen += [_of_file(Path(where, name)) for name in sorted(names) if name.endswith(_READ)]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]

    def report(self) -> bytes:
        """The report of the files as they are, made only where they have changed."""
        with self._making:
            state = self.state()
            if self._made[0] != state:
                self._made = (state, render(self.given).encode())
            return self._made[1]

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Kind and content of what stands at a path; None where nothing does."""
        if path == "/":
            return "text/html", self._page
        if path == "/state":
            return "text/plain", self.state().encode()
        return ("text/html", self.report()) if path == "/report" else None


class _Answer(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Watch

    def do_GET(self) -> None:
        """The frame, the state, or the report."""
        if self.headers.get("Host") not in (f"{_HERE}:{self.server.port}", f"localhost:{self.server.port}"):
            self.send_error(HTTPStatus.FORBIDDEN, "this page is for this machine alone")
            return
        try:
            found = self.server.answer(self.path.partition("?")[0])
        except (ValueError, OSError) as error:  # the folder was removed meanwhile
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "no report", str(error))
            return
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, content = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each question of the page would be all that is seen."""


def _of_file(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError:  # gone since it was listed
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]


def _frame(every: float, name: str) -> bytes:
    """The page around the report: its script asks for the state and shows the report again when that is another."""
    script = (files("spectrain.report") / "assets" / "watch.js").read_text(encoding="utf-8")
    script = script.replace("EVERY", str(round(1000 * every)))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; connect-src 'self'; frame-src 'self'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{text(name)}: watching</title><style>{_STYLE}</style></head>"
        f'<body><iframe id="report" title="report"></iframe><script>{script}</script></body></html>\n'
    ).encode("utf-8", errors="replace")
