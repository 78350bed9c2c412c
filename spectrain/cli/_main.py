"""The command line: find the verb, run it, turn what users can mend into one clear line."""

import contextlib
import difflib
import importlib
import inspect
import io
import sys
from collections.abc import Sequence

import spectrain
from spectrain._extras import MissingPackageError, wanted_by
from spectrain._spinning import limit_spinning
from spectrain.cli._process import OutputLost, interrupts, standard_streams
from spectrain.train.internal import TRAINERS, Elsewhere, config_class, follows, is_told, started

TOOLS = {
    "prepare": "tokenize text once, into files that training maps instead of reading it",
    "sample": "let a trained model continue a prompt",
    "export": "write a trained model in Hugging Face's format",
    "compare": "train the same model under several optimizers and count tokens to the same loss",
    "check": "see whether outputs, spectral norms and the best learning rate depend on the width",
    "compress": "replace the linear layers of a trained model by smaller ones, and judge it again",
    "report": "make report.html from one or more run folders",
    "watch": "show the report of a run in a browser while it trains",
    "plan": "say what a run would cost each rank of a mesh: memory, bytes, seconds; and which mesh to take",
    "calibrate": "measure this machine, for plan",
    "design": "compute a schedule of polynomials, its error bounds, a plot, and code to paste",
    "gallery": "five classical problems, solved and drawn",
}
"""The verbs that are no jobs: each is the file ``_<verb>.py`` beside this one, with ``main(argv) -> exit code``."""
WITH_A_FILE = ("train", "embed")
"""Jobs whose verb does more than to train: these have such a file too. Every other job is trained by ``_job.py``."""
TOGETHER = ("train", "calibrate")
"""Verbs that several processes do together."""
VERBS = (*TRAINERS, *TOOLS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``spectrain ARGV``; return the exit code: 0 done, 1 the run failed or its output was lost, 2 the call was
    wrong, 130 interrupted.

    >>> main(["--version"])
    spectrain 0.1.0
    0
    """
    _say_any_name()
    limit_spinning()  # before a verb loads torch
    words = list(sys.argv[1:] if argv is None else argv)
    with standard_streams() as lost, interrupts() as interrupted:
        code = _run(words, interrupted)
    return fail(f"standard output could not be written: {lost[0]}.", code=1) if lost and code == 0 else code


def _run(words: list[str], interrupted: list[int]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _answer(words)
    except OutputLost:  # the streams know why
        return 0
    except Elsewhere as other:
        return other.code
    except KeyboardInterrupt:
        return fail("interrupted.", code=130)
    except Exception as error:  # a user gets a line, not a trace; --debug gives the trace
        if interrupted:  # Ctrl-C in the middle of an import comes out as whatever the import makes of it
            return fail("interrupted.", code=130)
        code = 2 if isinstance(error, (ValueError, TypeError, OSError, MissingPackageError)) else 1
        if follows() and not is_told(error):  # rank 0 has the same, and says it
            return code
        return _fail_with(error, code=code, debug=debug)


def _answer(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"spectrain {spectrain.__version__}")
        return 0
    if words[0] not in VERBS:
        return fail(f"there is no verb {words[0]!r}.{_nearest(words[0])} See spectrain --help.")
    return _call(words[0], words[1:])


def _call(verb: str, argv: list[str]) -> int:
    """Load the code of a verb, and torch with it where it needs that, and run it."""
    if verb not in TOGETHER:
        _check_alone(verb)
    own = verb in TOOLS or verb in WITH_A_FILE
    with wanted_by(f"spectrain {verb}"):
        found = importlib.import_module(f"spectrain.cli._{verb if own else 'job'}")
    code: int = found.main(argv) if own else found.main(verb, argv)
    return code


def _check_alone(verb: str) -> None:
    """Refuse to do several times over, into one folder, what one process does."""
    try:
        start = started()
    except ValueError:  # variables of somebody else's
        return
    if start is not None:
        raise ValueError(f"spectrain {verb} runs in one process, and {start.world} were started; leave torchrun out.")


def _say_any_name() -> None:
    """Let standard output write names of files that are not UTF-8, as standard error does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def fail(message: str, *, code: int = 2) -> int:
    """Say on standard error what went wrong; return the exit code."""
    with contextlib.suppress(OSError):  # nobody hears it; the exit code says it all the same
        print(f"spectrain: error: {message}", file=sys.stderr, flush=True)
    return code


def _fail_with(error: Exception, *, code: int, debug: bool) -> int:
    if debug:
        raise error
    known = code == 2 or is_told(error)
    kind = "" if known else f"{type(error).__name__}: "
    hint = "" if known else " (--debug shows where)"
    return fail(f"{kind}{error}{hint}", code=code)


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = {**{job: _in_short(job) for job in TRAINERS}, **TOOLS}
    lines = [f"  {verb:{width}}  {what}" for verb, what in verbs.items()]
    return "\n".join(
        [
            "usage: spectrain VERB [OPTIONS]",
            "",
            "Spectral methods for training neural networks, from the best polynomial to a trained model.",
            "",
            *lines,
            "",
            "spectrain VERB --help explains a verb; --debug anywhere shows the trace of an error; --version.",
        ]
    )


def _in_short(job: str) -> str:
    """The first sentence that a job's configuration says of it, as a line of the overview."""
    sentence = " ".join((inspect.getdoc(config_class(job)) or "").split()).split(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def _nearest(word: str) -> str:
    near = difflib.get_close_matches(word, VERBS, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(VERBS)}."
