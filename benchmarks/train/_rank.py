"""One rank of a run that is looked at: `spectrain train`, with the most memory before its last checkpoint written down.

torchrun ... -m benchmarks.train._rank FOLDER train ...
"""

import json
import os
import sys
from pathlib import Path

from benchmarks._memory import Peak
from spectrain.cli import main
from spectrain.train._run import session


def run(folder: Path, argv: list[str]) -> int:
    with Peak(interval=0.002) as peak:
        save = session.Session.save

        def noted(self: session.Session) -> None:
            said = {"before": peak.before, "most": peak.most}
            (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(said), encoding="utf-8")
            save(self)

        session.Session.save = noted
        return main(argv)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
