"""What every origin promises."""

from dataclasses import dataclass
from typing import Protocol

from morpheus_boot.cache.parts import Version
from morpheus_boot.config.redact import Secret


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a model's bytes are now, and which version they are. ``url`` may be signed, and short-lived.

    ``token`` is for ``token_hosts`` alone; ``if_range`` is what the bytes' own server validates a range by,
    and ``last_modified`` is from there;
    ``commit`` is the Hugging Face commit that the revision stands for. ``direct`` is where ``url`` redirects to,
    if it does; ``honours_ranges``: its server has answered a range with 206.
    """

    url: Secret
    version: Version
    token: Secret | None = None
    token_hosts: frozenset[str] = frozenset()
    if_range: str | None = None
    last_modified: str | None = None
    commit: str | None = None
    direct: Secret | None = None
    honours_ranges: bool = False


class Origin(Protocol):
    """Answers where a model is, how long, and by which digest it is known."""

    def resolve(self) -> Resolved:
        """Asks the origin anew.

        Raises:
            TransientFailure: it may answer later.
            OriginDenied, OriginUnavailable: it refuses, or has no such file.
        """
