"""``python -m spectrain.approx`` writes ``tables.py`` anew; with ``--check`` it only compares and says what differs.

Every frozen schedule is computed from its setting (`_schedules.frozen`); nothing there is typed by hand.
"""

import argparse
import sys
from pathlib import Path

from spectrain.approx._schedules.frozen import table_text
from spectrain.approx._schedules.sign import design


def main(arguments: list[str] | None = None) -> int:
    """Write or check the table; the exit code is 1 when ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m spectrain.approx", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the file, write nothing")
    check = parser.parse_args(arguments).check
    path = Path(__file__).with_name("tables.py")
    text = table_text(design)
    same = path.exists() and path.read_text() == text
    if check:
        print(f"{path.name} {'is up to date' if same else 'differs from what its settings give'}")
        return 0 if same else 1
    path.write_text(text)
    print(f"wrote {path.name}: {text.count('Schedule(')} schedules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
