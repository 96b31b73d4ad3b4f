"""One call of the program: what arguments and environment said, parsed."""

from dataclasses import dataclass, field
from pathlib import Path

from morpheus_boot.cache.options import LockTimes
from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import Settings
from morpheus_boot.work.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Invocation:
    """The settings, and the options of single commands.

    ``repair`` is verify's, ``write`` pin's, ``file`` import's; ``apply``, ``forget``, ``jobs_older_than_h`` are gc's.
    ``lock_timeout_s``: the longest wait for one model that another worker fetches. ``retry_s``: how long an origin may
    fail to get on.
    """

    settings: Settings
    redact: Redactor = field(default_factory=Redactor)
    json: bool = False
    replace_in_place: bool = False
    repair: bool = False
    write: bool = False
    apply: bool = False
    forget: tuple[str, ...] = ()
    jobs_older_than_h: float | None = None
    file: Path = Path()
    lock_timeout_s: float = LockTimes().deadline_s
    retry_s: float = Backoff().deadline_s
