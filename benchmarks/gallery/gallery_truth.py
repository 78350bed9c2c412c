"""The gallery against its independent truths, in full: brute force, ball arithmetic, mpmath, scipy, closed forms.

`python -m benchmarks.gallery.gallery_truth` runs tests/gallery with --full; given JUnit files
(`pytest --full --junitxml=a.xml tests/gallery/...`, then `--junit a.xml`) it writes the record from them.
"""

from pathlib import Path

from benchmarks import _suites
from benchmarks._program import main
from benchmarks._record import Found


def measure(*, junit: tuple[Path, ...] = (), files: str = "test_*.py", words: str = "") -> Found:
    """Run or read the suites: ``junit`` are files of a run made already, ``files`` and ``words`` choose the tests."""
    found = _suites.of("gallery", junit=junit, files=files, words=words)
    failed = _suites.failures(found)
    body = f"{_suites.by_file(found)}\n\n{_suites.many(found)}\n\nFailed: {', '.join(failed) or 'none'}."
    figures = {"tests": len(found), "failed": len(failed)}
    return Found(rows=[t._asdict() for t in found], body=body, figures=figures)


if __name__ == "__main__":
    main(
        "gallery_truth",
        "The gallery against independent truths, in full: {failed} of {tests} tests fail",
        measure,
        smoke={"files": "test_kepler.py", "words": "barkers or halley"},
    )
