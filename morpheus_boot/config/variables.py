"""Environment variables, read by type: by one rule in the boot and in the file server. Standard library only."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import UsageError

# How a Pod's template names a secret. One that RunPod doesn't have arrives as it was written.
_PLACEHOLDER: Final = re.compile(r"\{\{\s*RUNPOD_SECRET_[^{}]*\}\}")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Variables:
    """An environment. Space around a value is dropped, and an empty one is not set; a wrong one is a UsageError."""

    environ: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """The value as it is, or None."""
        return self.environ.get(name, "").strip() or None

    def path(self, name: str) -> Path | None:
        """The value as an absolute path, ``~`` being the user's home; or None."""
        value = self.text(name)
        return Path(value).expanduser().absolute() if value else None

    def program(self, name: str) -> Path | None:
        """The value as path() has it, but for a bare name, which is one to be looked up on PATH."""
        value = self.text(name)
        return Path(value) if value and "/" not in value else self.path(name)

    def origins(self, name: str) -> tuple[str, ...]:
        """The value as origins of web pages, with commas between them."""
        parted = (self.text(name) or "").split(",")
        return tuple(origin.strip().rstrip("/") for origin in parted if origin.strip())

    def token(self, name: str) -> Secret | None:
        """The value as a token, as parse_token() wants it; or None."""
        value = self.text(name)
        return Secret(parse_token(name, value)) if value else None

    def port(self, name: str) -> int | None:
        """The value as a TCP port, or None."""
        value = self.text(name)
        if value is None:
            return None
        if not value.isdecimal() or not 1 <= int(value) <= 65535:
            raise UsageError(name, f"'{value}' is not a port", "give a number from 1 to 65535")
        return int(value)

    def number(self, name: str) -> float | None:
        """The value as a finite number above 0, or None."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not 0 < number < float("inf"):
            raise UsageError(name, f"'{value}' is not a number above 0", "give one, or unset it")
        return number

    def whole(self, name: str, default: int) -> int:
        """The value as a whole number above 0, or ``default``."""
        value = self.text(name) or str(default)
        if not value.isdecimal() or int(value) < 1:
            mend = "give one, or unset it"
            raise UsageError(name, f"'{value}' is not a whole number above 0", mend)
        return int(value)

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """The value as one of ``choices``, or None."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise UsageError(name, f"'{value}' is none of its values", f"give {_either(choices)}")
        return value


def parse_token(name: str, value: str) -> str:
    """``value`` of the variable ``name`` as a token: no header can carry another. Space around it is dropped.

    Raises UsageError, which does not show the value.
    """
    token = value.strip()
    if left := _PLACEHOLDER.search(token):
        placeholder = ascii(" ".join(left[0].split()))[1:-1]
        raise UsageError(
            name,
            f"RunPod left {placeholder} as it is: it has no secret of that name",
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


def _either(choices: Iterable[str]) -> str:
    return " or ".join(choices)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the file server. The sizes and numbers have variables, the times have none."""

    upload_bytes: int = 20_000_000_000
    job_files: int = 10_000
    form_bytes: int = 64_000
    # RunPod's own limit on a request is 30 MB at most.
    job_bytes: int = 64_000_000
    connections: int = 512
    # So long after its last byte a resumable upload expires, complete or not.
    upload_keeps_s: float = 86_400.0
    # A body of which nothing comes for so long is given up: a lost packet or a phone in a tunnel is back before.
    body_idle_s: float = 20.0
    # As nginx's send_timeout: a reader that takes nothing for so long is gone, or has paused its video.
    stall_s: float = 60.0


def read_limits(variables: Variables) -> Limits:
    """The limits as they are set. The boot reads them too: a mistake must end it, not the file server it starts."""
    whole = variables.whole
    return Limits(
        upload_bytes=whole("MORPHEUS_MAX_UPLOAD_MB", 20_000) * 10**6,
        job_files=whole("MORPHEUS_MAX_JOB_FILES", 10_000),
        form_bytes=whole("MORPHEUS_MAX_FORM_KB", 64) * 1000,
        connections=whole("MORPHEUS_MAX_CONNECTIONS", 512),
    )
