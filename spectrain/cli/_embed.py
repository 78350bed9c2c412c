"""``spectrain embed``: pairs in, a search and a report out; with a run and --query, the search itself."""

import textwrap

from spectrain.cli import _job
from spectrain.cli._parse import Parser


def main(argv: list[str]) -> int:
    """Train and write the report; or, given a run folder first, search."""
    if argv and not argv[0].startswith("-"):
        return _search(argv)
    return _job.main("embed", argv)


def _search(argv: list[str]) -> int:
    parser = Parser(prog="spectrain embed", description="Search the documents of a run.")
    parser.add_argument("run", help="the folder that spectrain embed wrote")
    parser.add_argument(
        "--query", nargs="+", required=True, help="what to look for; several are asked one after another"
    )
    parser.add_argument("--top", type=int, default=5, help="how many documents to show (default: 5)")
    asked = parser.parse_args(argv)
    if asked.top < 1:
        raise ValueError(f"--top must be at least 1, got {asked.top}.")
    from spectrain.train.internal import Search

    search = Search(asked.run)
    for query in asked.query:
        print(f"{query!r} among {len(search.pairs):,} documents:")
        for i, hit in enumerate(search(query, top=asked.top), start=1):
            lines = hit.pair.document.strip().splitlines()
            print(f"{i}. {hit.pair.group}  ({hit.score:.2f})\n{textwrap.indent(chr(10).join(lines[:3]), '     ')}")
    return 0
