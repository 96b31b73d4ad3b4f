"""Brings one model in: part, transfer, check, publish, record. The caller holds its claim."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from morpheus_boot.cache.checks import complaint
from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.cache.origins import Origin, Resolved
from morpheus_boot.cache.origins.resolutions import resolve
from morpheus_boot.cache.parts import ModelPart, Version, open_part
from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.cache.transfer.stream import VersionChanged
from morpheus_boot.cache.transfer.transfer import Engine
from morpheus_boot.errors import OriginUnavailable, is_full
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import utc_now
from morpheus_boot.volume.journal import journal_of
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import size_text
from morpheus_boot.volume.publish import publish

_LOG: Final = logging.getLogger("morpheus.cache")
_MOST_BEGINNINGS: Final = 3


class TakenOver(Exception):
    """Another worker took this model over while this one was silent, and dropped its part."""


class Damaged(Exception):
    """What arrived is not what was promised."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """What all fetches of one fill share."""

    layout: Layout
    worker: str
    engine: Engine
    times: TransferTimes
    stopping: threading.Event

    def fetch(
        self,
        model: ModelSpec,
        origin: Origin,
        resolved: Resolved,
        *,
        inherits: bool,
        on_progress: Callable[[Reading], None],
        already_there: Callable[[], bool],
    ) -> Record | None:
        """Brings the model in and records it; None where another worker published it meanwhile.

        ``inherits``: the part of a dead worker may be continued. ``already_there`` is asked right before the
        publication: whoever was silent for a while must not replace what others use by now.

        Raises:
            OriginUnavailable: what arrives is not the model, or not what models.yaml says.
            Stopped, TakenOver, OriginDenied.
            OSError: the volume fails; where it is full the part is gone, so that jobs can still write.
        """
        for beginning in range(1, _MOST_BEGINNINGS + 1):
            version = agreed_version(model, resolved.version)
            resolved = replace(resolved, version=version)
            part = self._open_part(model, version, inherits=inherits)
            continued = part.written_bytes > 0
            if continued:
                there = size_text(part.written_bytes)
                _LOG.info("%s: going on, %s are there", model.path, there)
            try:
                digest = self._transfer(model, origin, resolved, part, on_progress)
                return self._publish(model, part, digest, already_there)
            except VersionChanged:
                part.discard()
                cause = "its origin has other bytes now"
            except Damaged as error:
                part.discard()
                cause = str(error)
                if not continued:
                    raise OriginUnavailable(
                        model.path,
                        f"what {version.origin} sends is damaged or not the model: {cause}",
                        "check its origin in models.yaml, its sha256 and size if given, and a token if it wants one",
                    ) from error
            except OSError as error:
                _let_go(part, model, error)
                raise
            except BaseException:
                part.close()
                raise
            _LOG.warning("%s: %s; beginning anew", model.path, cause)
            if beginning < _MOST_BEGINNINGS:
                resolved = resolve(origin, self.times.retry, self.stopping)
        raise OriginUnavailable(
            model.path,
            f"its origin changed {_MOST_BEGINNINGS} times while it was fetched",
            "try again when it is quiet, or name a fixed revision",
        )

    def _open_part(self, model: ModelSpec, version: Version, *, inherits: bool) -> ModelPart:
        try:
            return open_part(
                self.layout,
                model.path,
                version,
                inherits=inherits,
                chunk_bytes=self.times.chunk_bytes,
            )
        except FileNotFoundError as error:
            # Where the lock lets two in, the other one has just published or dropped it.
            raise TakenOver(model.path) from error

    def _transfer(
        self,
        model: ModelSpec,
        origin: Origin,
        resolved: Resolved,
        part: ModelPart,
        on_progress: Callable[[Reading], None],
    ) -> str:
        digest = self.engine.fetch(origin, resolved, part, on_progress)
        expected = resolved.version.sha256
        if expected is not None and digest != expected:
            raise Damaged(f"its SHA-256 is {digest}, not {expected}")
        wrong = complaint(part.path, model.path)
        if wrong:
            raise Damaged(wrong)
        return digest

    def _publish(
        self, model: ModelSpec, part: ModelPart, digest: str, already_there: Callable[[], bool]
    ) -> Record | None:
        # Before the publication: after it, the name may be another worker's already.
        stat = part.finish()
        if already_there():
            part.discard()
            return None
        try:
            publish(part.path, self.layout.model(model.path))
        finally:
            part.close()
        record = Record(
            path=model.path,
            origin=model.source.identity,
            etag=part.head.etag,
            sha256=digest,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            recorded_at=utc_now(),
            by=self.worker,
        )
        # Before the record: a model that has one is asked about no more, and nobody would remove it.
        journal_of(part.path).unlink(missing_ok=True)
        write_record(self.layout, record)
        return record


def _let_go(part: ModelPart, model: ModelSpec, error: OSError) -> None:
    # A host that was cut off for three minutes comes back to EIO. A part that is closed may be gone by our own hand.
    may_be_taken = part.is_open or isinstance(error, FileNotFoundError)
    is_taken = may_be_taken and not part.path.exists()
    if is_full(error):
        # Without its name it was published, and only its record has found no room.
        if part.path.exists():
            _LOG.warning(
                "%s: the rest has no room; the %s that had come are removed again, so that jobs can write",
                model.path,
                size_text(part.written_bytes),
            )
        part.discard()
    part.close()
    if is_taken:
        # Who took over from us while we were silent has taken our part's name.
        raise TakenOver(model.path) from error


def agreed_version(model: ModelSpec, version: Version) -> Version:
    """What models.yaml and the origin say together. Raises OriginUnavailable where they contradict each other."""
    for what, ours, theirs in (
        ("size", model.size_bytes, version.size_bytes),
        ("sha256", model.sha256, version.sha256),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise OriginUnavailable(
                model.path,
                f"models.yaml says {what} {ours}, {version.origin} says {theirs}",
                "correct models.yaml, or name the revision that it means",
            )
    return replace(
        version,
        size_bytes=version.size_bytes if version.size_bytes is not None else model.size_bytes,
        sha256=model.sha256 or version.sha256,
    )
