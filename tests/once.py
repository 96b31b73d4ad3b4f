"""What a session's processes share is made by the first of them that needs it; the others wait for that."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock

_TIMEOUT_S: Final = 300.0


def made_once(folder: Path, make: Callable[[], object]) -> None:
    """Makes ``folder`` and calls ``make``, which fills it, unless another process has."""
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock"), timeout=_TIMEOUT_S):
        if not done.exists():
            folder.mkdir()
            make()
            done.touch()
