"""Names of files that are not UTF-8 on the command line."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_name_that_is_not_utf8_is_said_where_output_is_strict(tmp_path):
    run = os.fsencode(tmp_path) + b"/r\xe9n"
    os.mkdir(run)
    with open(run + b"/metrics.jsonl", "w") as file:
        file.write('{"kind": "step", "step": 1, "loss": 8.3}\n')
    done = subprocess.run(
        [sys.executable, "-m", "spectrain", "report", run],
        cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"r\\udce9n" in done.stdout
    assert os.path.getsize(run + b"/report.html") > 1e6
