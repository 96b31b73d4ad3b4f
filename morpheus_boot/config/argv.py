"""The command and options among the arguments: for those who can't wait for argparse, or whom it has failed."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

from morpheus_boot.work.stopping import stop_signals

# What follows these is no command.
_TAKES_VALUE: Final = frozenset(
    {
        "--models",
        "--volume",
        "--comfyui",
        "--log-format",
        "--lock-timeout",
        "--retry-for",
        "--jobs-older-than",
        "--forget",
    }
)
_STAYING: Final = frozenset({"up", "files"})


def find_command(argv: Sequence[str]) -> int | None:
    """Where the command stands in ``argv``; None where there is none. Options may stand on both sides of it."""
    words = enumerate(argv)
    for at, word in words:
        if word in _TAKES_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return at
    return None


def stays(argv: Sequence[str]) -> bool:
    """Whether the command in ``argv``, which is ``up`` where there is none, stays until it is stopped."""
    at = find_command(argv)
    return at is None or argv[at] in _STAYING


def end_when_stopped(argv: Sequence[str]) -> None:
    """From now on a stop ends the process as it would end the command in ``argv`` later: nothing runs yet."""

    def end(signum: int, _frame: FrameType | None) -> None:
        sys.exit(0 if stays(argv) else 128 + signum)

    for stop in stop_signals():
        signal.signal(stop, end)


def value_of(option: str, argv: Sequence[str]) -> str | None:
    """What stands behind ``option`` in ``argv``, or None."""
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(argv[at + 1 :]), None)
    return None
