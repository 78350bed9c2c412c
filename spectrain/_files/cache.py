"""Where the caches of this package stand."""

import errno
import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for this package: XDG_CACHE_HOME, Library/Caches or LOCALAPPDATA.

    Raises ``OSError`` where there is none, for a user without a home; a cache is then done without. (A folder of a
    known name in ``/tmp`` could be another user's.)
    """
    try:
        return _cache_base() / "spectrain"
    except RuntimeError:
        raise OSError(
            errno.ENOENT, "this user has no home folder and so no cache folder; set HOME or XDG_CACHE_HOME"
        ) from None


def _cache_base() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    asked = os.environ.get("XDG_CACHE_HOME", "")
    return Path(asked) if os.path.isabs(asked) else Path.home() / ".cache"  # the standard: relative ones do not count
