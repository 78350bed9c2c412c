"""A program with processes of its own, ended in each way that a program ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

ENDINGS = {
    "without a word": ("pass", 0),
    "by an error": ("raise SystemExit(3)", 3),
    "by Ctrl-C": ("time.sleep(60)", -signal.SIGINT),
    "by a kill": ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
}


def heed_ctrl_c():
    """A suite that a shell has put into the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def ends_cleanly(tmp_path):
    """Run a program that prints 0 and has ``{ending}`` as its last line; it must end so and leave no process."""

    def check(program, *, ending, method):
        file, (last, expected) = tmp_path / "program.py", ENDINGS[ending]
        file.write_text(textwrap.dedent(program).format(ending=last, method=method))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(file)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        assert process.stdout.readline() == "0\n"
        if ending == "by Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to all of them
        _, err = process.communicate(timeout=45)
        assert process.returncode == expected, err
        assert "Traceback" not in err or ending == "by Ctrl-C"
        with pytest.raises(ProcessLookupError):
            for _ in range(200):
                os.killpg(process.pid, 0)
                time.sleep(0.05)

    return check
