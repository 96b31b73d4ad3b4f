"""How an environment variable's value is read: by one rule in the boot and in the file server."""

import re
from typing import Final

from morpheus_boot.errors import UsageError

# How a Pod's template names a secret. One that RunPod doesn't have arrives as it was written.
_PLACEHOLDER: Final = re.compile(r"\{\{\s*RUNPOD_SECRET_\w*\s*\}\}", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


def parse_token(name: str, value: str) -> str:
    """``value`` of the variable ``name`` as a token: no header can carry another. Space around it is dropped.

    Raises UsageError, which does not show the value.
    """
    token = value.strip()
    if left := _PLACEHOLDER.search(token):
        raise UsageError(
            name,
            f"RunPod left {' '.join(left[0].split())} as it is: it has no secret of that name",
            "make that secret in RunPod's console, or correct its name in the template",
        )
    if "\n" in token or "\r" in token:
        raise UsageError(name, "it has more than one line", "set it to the token alone, once")
    if wrong := _UNPRINTABLE.search(token):
        raise UsageError(
            name,
            f"its character {wrong.start() + 1} is U+{ord(wrong[0]):04X}, which no token holds",
            "copy the token again, without quotes or spaces in it",
        )
    return token


def parse_port(name: str, value: str) -> int:
    """``value`` of the variable ``name`` as a TCP port. Raises UsageError."""
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise UsageError(name, f"'{value}' is not a port", "give a number from 1 to 65535")
    return int(value)


def parse_positive(name: str, value: str) -> float:
    """``value`` of the variable ``name`` as a finite number above 0. Raises UsageError."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise UsageError(name, f"'{value}' is not a number above 0", "give one, or unset it")
    return number


def parse_positive_whole(name: str, value: str) -> int:
    """``value`` of the variable ``name`` as a whole number above 0. Raises UsageError."""
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(name, f"'{value}' is not a whole number above 0", "give one, or unset it")
    return int(value)
