"""Where one version's bytes are now, for all connections of a transfer: renewed by one of them for all."""

import threading
from dataclasses import dataclass, replace

from morpheus_boot.cache.origins.origin import Origin, Resolved, Validator
from morpheus_boot.cache.parts import ModelPart
from morpheus_boot.cache.transfer.stream import CannotContinue, VersionChanged


@dataclass(frozen=True, slots=True)
class Place:
    """One answer of an origin, and the validator that its streams have shown so far."""

    resolved: Resolved
    validator: Validator
    nth: int = 0


class Location:
    """The place to ask now. Safe from any thread."""

    def __init__(self, origin: Origin, resolved: Resolved, part: ModelPart) -> None:
        self._origin = origin
        self._part = part
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self.place = Place(resolved, resolved.validator)

    def learn(self, place: Place, validator: Validator) -> None:
        """Takes the validator that a stream from ``place`` has shown: the next ones must agree.

        Raises VersionChanged: two streams that began together do not; a known digest decides by itself.
        """
        with self._lock:
            if self.place.nth != place.nth:
                return
            known = self.place.validator
            if self._part.head.sha256 is None and known.contradicts(validator):
                raise VersionChanged
            merged = Validator(
                known.etag or validator.etag, known.last_modified or validator.last_modified
            )
            self.place = replace(self.place, validator=merged)

    def renew(self, used: Place) -> None:
        """Asks the origin anew, unless another connection did so since ``used``.

        Always after a failure: a signed URL may have expired, and the origin may have other bytes by now.
        Raises TransientFailure, VersionChanged, CannotContinue, OriginDenied, OriginUnavailable.
        """
        with self._renewing:
            if self.place.nth != used.nth:
                return
            resolved = self._origin.resolve()
            found, ours = resolved.version, self._part.head
            # What models.yaml has added stays: a digest, and a size, where the origin has none.
            found = replace(
                found,
                sha256=found.sha256 or ours.sha256,
                size_bytes=ours.size_bytes if found.size_bytes is None else found.size_bytes,
            )
            if found != ours and not found.continues(ours):
                raise VersionChanged
            # The next stream's Last-Modified must agree; where there is none either, nothing need.
            last_modified = self.place.validator.last_modified
            if self._part.written_bytes and not (found.sha256 or found.etag or last_modified):
                raise CannotContinue
            validator = Validator(resolved.validator.etag, None if found.etag else last_modified)
            with self._lock:
                self.place = Place(replace(resolved, version=found), validator, used.nth + 1)
