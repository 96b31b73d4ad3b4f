"""What a check looks at, and what it finds."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum

from morpheus_boot.cache.survey import Survey
from morpheus_boot.config.settings import Settings
from morpheus_boot.errors import MorpheusError, each_of
from morpheus_boot.manifest import Manifest
from morpheus_boot.volume.mount import Volume


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
    return tuple(
        error(check, one.cause if one.subject == check else f"{one.subject}: {one.cause}", one.mend)
        for one in each_of(raised)
    )


@dataclass(frozen=True, slots=True)
class Patient:
    """A machine as settings and manifest see it; of a models.yaml that is wrong nothing is known.

    ``volume``, the one that a boot would use, and its ``survey`` are under way: one that hangs never comes.
    """

    settings: Settings
    manifest: Manifest
    volume: Future[Volume]
    survey: Future[Survey]
    stopping: threading.Event
