"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum

from morpheus_boot.errors import MorpheusError, SeveralErrors


class Level(StrEnum):
    """``WARNING``: a boot would go on. ``ERROR``: it would end, or its ComfyUI could not do its work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, how it stands, and the mend where it should be better."""

    check: str
    level: Level
    says: str
    mend: str = ""


def ok(check: str, says: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, says)


def warning(check: str, says: str, mend: str) -> Finding:
    """A boot would go on."""
    return Finding(check, Level.WARNING, says, mend)


def error(check: str, says: str, mend: str) -> Finding:
    """A boot would end, or its ComfyUI could not do its work."""
    return Finding(check, Level.ERROR, says, mend)


def errors_of(check: str, raised: MorpheusError) -> tuple[Finding, ...]:
    """What a boot would end with, a finding each."""
    single = raised.errors if isinstance(raised, SeveralErrors) else (raised,)
    return tuple(error(check, _says(check, one), one.mend) for one in single)


def _says(check: str, raised: MorpheusError) -> str:
    return raised.cause if raised.subject == check else f"{raised.subject}: {raised.cause}"
