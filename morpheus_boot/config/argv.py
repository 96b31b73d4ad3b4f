"""The command and options among the arguments: for those who can't wait for argparse, or whom it has failed."""

from collections.abc import Sequence
from typing import Final

# What follows these is no command. pod_start.sh's command_in knows the same; a test compares the two.
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


def command_in(argv: Sequence[str]) -> str:
    """The command in ``argv``, ``up`` where there is none."""
    at = find_command(argv)
    return "up" if at is None else argv[at]


def stays(argv: Sequence[str]) -> bool:
    """Whether the command in ``argv`` stays until it is stopped."""
    return command_in(argv) in _STAYING


def value_of(option: str, argv: Sequence[str]) -> str | None:
    """What stands behind ``option`` in ``argv``, or None."""
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(argv[at + 1 :]), None)
    return None
