"""What a command prints for its user, or for the next program in a pipe."""

import json
import os
import sys

from morpheus_boot.errors import StorageFailed


class ReaderGone(Exception):
    """Whoever read stdout has ended, as ``head`` does: nothing that a user must be told."""


def print_text(text: str) -> None:
    """Prints ``text`` as it is, at once. Raises ReaderGone, StorageFailed."""
    try:
        print(text, end="", flush=True)  # noqa: T201 - the only one
    except OSError as error:
        _drop_the_rest()
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise StorageFailed(
            "stdout",
            f"it can't be written ({(error.strerror or str(error)).lower()})",
            "make room where it goes, or send it elsewhere",
        ) from error


def print_line(text: str) -> None:
    """Prints one line. Raises as print_text() does."""
    print_text(f"{text}\n")


def print_json(document: object) -> None:
    """Prints the one document of ``--json``. Raises as print_text() does."""
    print_line(json.dumps(document, ensure_ascii=False, indent=1))


def _drop_the_rest() -> None:
    """Python flushes stdout once more at its end, and would complain."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
