"""The command among the arguments: also for those who can't wait for argparse and the imports that it needs."""

from collections.abc import Sequence
from typing import Final

# What follows these is no command. pod_start.sh's command_in knows the same; a test compares the two.
_TAKES_VALUE: Final = frozenset({"--models", "--volume", "--comfyui", "--log-format"})


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
