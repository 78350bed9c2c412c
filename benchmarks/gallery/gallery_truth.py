"""The gallery against its independent truths, in full: brute force, ball arithmetic, mpmath, scipy, closed forms.

`python benchmarks/gallery_truth.py` runs tests/gallery with --full and writes a record; given JUnit files
(`pytest --full --junitxml=a.xml tests/gallery/...`) it writes the record from them.
"""

import argparse
from pathlib import Path

import _suites
from _record import table, write


def main() -> None:
    """Run or read the suites and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", nargs="*", type=Path, help="JUnit files of a run that has been made already")
    found = _suites.of("gallery", parser.parse_args().junit)
    files = table(["suite", "tests", "cases", "seconds", "passed", "failed", "skipped"], _suites.by_file(found))
    large = table(["test of many cases", "cases", "seconds", "outcome"], _suites.many(found))
    failed = [f"{t.file}::{t.name}" for t in found if t.outcome == "failed"]
    body = f"{files}\n\n{large}\n\nFailed: {', '.join(failed) or 'none'}."
    data = {"tests": [t._asdict() for t in found]}
    print(write("gallery_truth", claim="The gallery agrees with independent truths, in full", body=body, data=data))


if __name__ == "__main__":
    main()
