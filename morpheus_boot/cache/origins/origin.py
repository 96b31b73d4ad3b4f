"""What every origin promises: it says where a model is and which version that is; it moves no bytes."""

from dataclasses import dataclass
from typing import Protocol

from morpheus_boot.cache.parts import Version
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginUnavailable


class TransientFailure(Exception):
    """What may pass by itself: a lost connection, a 5xx, a 429. ``retry_after_s`` is the origin's own wish.

    ``crowded``: the origin may have had enough of our connections, rather than be at fault itself.
    ``mend``: what to do where it does not pass.
    """

    def __init__(
        self,
        cause: str,
        retry_after_s: float | None = None,
        *,
        crowded: bool = False,
        mend: str = "check the network and its URL, then try again",
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after_s = retry_after_s
        self.crowded = crowded
        self.mend = mend

    def lasting(self, subject: str) -> OriginUnavailable:
        """The error where it did not pass."""
        return OriginUnavailable(subject, self.cause, self.mend)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to ask; ``url`` may be signed, and short-lived.

    ``token`` goes to the hosts ``token_hosts`` as a Bearer token, and to no other. ``is_redirected``: the URL came
    from a redirect, so that a 403 means that its signature has expired.
    """

    url: Secret
    token: Secret | None = None
    token_hosts: frozenset[str] = frozenset()
    is_redirected: bool = False


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells two versions apart at one address: a strong ETag, else Last-Modified; both may be missing."""

    etag: str | None = None
    last_modified: str | None = None

    def contradicts(self, other: "Validator") -> bool:
        """Whether the two can't be of the same bytes."""
        if self.etag and other.etag:
            return self.etag != other.etag
        pair = (self.last_modified, other.last_modified)
        return None not in pair and pair[0] != pair[1]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a model's bytes are now, and which version they are.

    ``validator`` is that of the bytes' own server: storage behind a redirect has one of its own, and would answer 200
    to the first hop's. ``commit`` is the Hugging Face commit that the revision stands for. ``honours_ranges``: the
    server has answered a range with 206.
    """

    address: Address
    version: Version
    validator: Validator = Validator()
    commit: str | None = None
    honours_ranges: bool = False

    @property
    def in_parallel(self) -> bool:
        """Whether spans may come side by side: something would show that two answers are of two versions."""
        version, validator = self.version, self.validator
        marks = (version.sha256, version.etag, validator.etag, validator.last_modified)
        return self.honours_ranges and any(marks)


class Origin(Protocol):
    """Answers where a model is, how long, and by which digest it is known. ``subject``: the model, in errors."""

    subject: str

    def resolve(self) -> Resolved:
        """Asks the origin anew.

        Raises:
            TransientFailure: it may answer later.
            OriginDenied, OriginUnavailable: it refuses, or has no such file.
        """
