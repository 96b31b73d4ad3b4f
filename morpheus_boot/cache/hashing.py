"""Reads cached models again: those whose digest is not recorded yet, and all of them for ``verify``."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from morpheus_boot.cache.actions import Actions, make_actions
from morpheus_boot.cache.adopt import sha256_of
from morpheus_boot.cache.lock import ModelLock
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.planner import CachedModel
from morpheus_boot.cache.records import Record, read_record, read_record_file, write_record
from morpheus_boot.digests import sha256_in
from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.layout import Layout
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.state import ModelState
from morpheus_boot.volume import Volume

_LOG: Final = logging.getLogger("morpheus.cache")


class Condition(StrEnum):
    """What a second reading found."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNRECORDED = "unrecorded"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One cached model, read again."""

    path: str
    condition: Condition
    detail: str


def read_again(layout: Layout, stopping: threading.Event) -> Iterator[Verdict]:
    """Compares the SHA-256 of every recorded model with its record. Raises OSError; Stopped."""
    for path in sorted(layout.records.glob("*.json")):
        record = read_record_file(path)
        if record is not None and record.hub_file is None:
            yield _verdict(layout, layout.model(record.path), record, stopping)


def _verdict(layout: Layout, file: Path, record: Record, stopping: threading.Event) -> Verdict:
    if not file.is_file():
        return Verdict(record.path, Condition.MISSING, "its file is gone")
    stat = file.stat()
    size_bytes = stat.st_size
    if size_bytes != record.size_bytes:
        detail = f"{size_bytes} bytes instead of {record.size_bytes}"
        return Verdict(record.path, Condition.DAMAGED, detail)
    if record.damaged:
        return Verdict(record.path, Condition.DAMAGED, "its bytes were found damaged before")
    if record.sha256 is None:
        return Verdict(record.path, Condition.UNRECORDED, "its SHA-256 is not recorded yet")
    digest = sha256_of(file, stopping)
    if digest != record.sha256:
        return Verdict(
            record.path, Condition.DAMAGED, f"its SHA-256 is {digest} instead of {record.sha256}"
        )
    if stat.st_mtime_ns != record.mtime_ns:
        # It was moved with its volume; what was just read need not be read again at the next boot.
        try:
            write_record(layout, replace(record, mtime_ns=stat.st_mtime_ns))
        except OSError as error:
            _LOG.warning("%s: its record keeps the old mtime (%s)", record.path, error.strerror)
    return Verdict(record.path, Condition.WHOLE, digest)


class Repairs:
    """Fetches damaged models anew, each under its lock."""

    def __init__(
        self,
        volume: Volume,
        options: FillOptions,
        *,
        stopping: threading.Event,
        report: Callable[[ModelState], None],
    ) -> None:
        self._layout = volume.layout
        self._options = options
        self._stopping = stopping
        self._actions: Actions = make_actions(volume, options, stopping=stopping, report=report)

    def repair(self, model: ModelSpec) -> bool:
        """Fetches the model anew; False where another worker holds it. Raises MorpheusError, Stopped."""
        try:
            claim = self._lock(model).try_claim()
            if claim is None:
                return False
            with claim:
                record = read_record(self._layout, model.path)
                if record is not None:
                    write_record(self._layout, replace(record, damaged=True))
                self._actions.fetch(model, claim)
        except OSError as error:
            raise storage_error(model.path, self._layout.model(model.path), error) from error
        return True

    def hash_pending(self, models: Iterable[CachedModel]) -> None:
        """Records the digest of each adopted or moved model; one that proves damaged is fetched anew.

        A model that another worker holds is left to it. Failures are logged: nothing waits for this.
        Raises Stopped.
        """
        for cached in models:
            try:
                self._hash(cached)
            except (MorpheusError, OSError) as error:
                _LOG.warning("%s: not hashed, %s", cached.model.path, error)

    def _hash(self, cached: CachedModel) -> None:
        model = cached.model
        claim = self._lock(model).try_claim()
        if claim is None:
            return
        with claim:
            record = read_record(self._layout, model.path)
            if record is None:
                return
            stat = cached.file.stat()
            if record.sha256 is not None and record.mtime_ns == stat.st_mtime_ns:
                return
            digest = sha256_of(cached.file, self._stopping)
            expected = (
                model.sha256 or record.sha256 or record.expected_sha256 or _digest_in(record.etag)
            )
            if expected in (None, digest):
                hashed = replace(
                    record, sha256=digest, expected_sha256=None, mtime_ns=stat.st_mtime_ns
                )
                write_record(self._layout, hashed)
                _LOG.info("%s: hashed, sha256 %s", model.path, digest)
                return
            _LOG.warning(
                "%s: damaged (its SHA-256 is %s instead of %s), fetched anew; restart ComfyUI then",
                model.path,
                digest,
                expected,
            )
            write_record(self._layout, replace(record, damaged=True))
            self._actions.fetch(model, claim)

    def _lock(self, model: ModelSpec) -> ModelLock:
        lock = self._layout.lock(model.path)
        return ModelLock(model.path, lock, self._options.worker, self._options.lock_times)


def _digest_in(etag: str | None) -> str | None:
    # Hugging Face's X-Linked-Etag is the file's SHA-256.
    return sha256_in((etag or "").strip('"'))
