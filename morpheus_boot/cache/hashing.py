"""Records the digests that are still missing, and fetches anew what a second reading found damaged."""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from morpheus_boot.cache.actions import Actions, make_actions
from morpheus_boot.cache.adopt import sha256_of
from morpheus_boot.cache.fetch import TakenOver
from morpheus_boot.cache.lock.lock import Claim, ModelLock
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.planner import CachedModel
from morpheus_boot.cache.records import Record, read_record, write_record
from morpheus_boot.cache.reports import waiting
from morpheus_boot.cache.verdicts import TO_REPAIR, Condition, Verdict, judge, look
from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.digests import sha256_in
from morpheus_boot.volume.mount import Volume
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")


class Repairs:
    """What a second reading of a model leads to, each under its lock."""

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
        self._report = report
        self._actions: Actions = make_actions(volume, options, stopping=stopping, report=report)

    def repair(self, model: ModelSpec, verdict: Verdict) -> Verdict:
        """Fetches the model anew, once no other worker holds it; returns what is so then.

        What has changed since the verdict is read again first: another worker may have repaired it.
        Raises MorpheusError, WaitedTooLong where another held it too long; Stopped.
        """
        lock = self._lock(model.path)
        try:
            while True:
                try:
                    with self._wait_for_claim(model, lock) as claim:
                        return self._repair(model, verdict, claim)
                except TakenOver:
                    _LOG.warning("%s: another worker took it over meanwhile", model.path)
        except OSError as error:
            raise storage_error(model.path, self._layout.model(model.path), error) from error

    def _repair(self, model: ModelSpec, verdict: Verdict, claim: Claim) -> Verdict:
        record = read_record(self._layout, model.path)
        if record is not None:
            if look(self._layout, model.path) != verdict.sight:
                again = judge(self._layout, record, self._stopping)
                if again.condition not in TO_REPAIR:
                    return again
            write_record(self._layout, replace(record, damaged=True))
        self._actions.fetch(model, claim)
        return replace(verdict, condition=Condition.REPAIRED)

    def confirm(self, verdict: Verdict) -> None:
        """Records that a model is whole, where its record does not say so yet, so that no boot reads it again.

        Left out where a worker is at it, or where the volume can't be written.
        """
        record, mtime_ns = verdict.sight.record, verdict.sight.mtime_ns
        if record is None or mtime_ns is None or record.hub_file is not None:
            return
        confirmed = _hashed(record, verdict.detail, mtime_ns)
        if confirmed == record:
            return
        try:
            claim = self._lock(verdict.path).try_claim()
            if claim is None:
                return
            with claim:
                if look(self._layout, verdict.path) == verdict.sight:
                    write_record(self._layout, confirmed)
        except OSError as error:
            _LOG.warning("%s: its record stays as it was (%s)", verdict.path, error.strerror)

    def hash_pending(self, models: Iterable[CachedModel]) -> None:
        """Records the digest of each adopted or moved model; one that proves damaged is fetched anew.

        A model that another worker holds is left to it. Failures are logged: nothing waits for this.
        Raises Stopped.
        """
        for cached in models:
            try:
                self._hash(cached)
            except TakenOver:
                _LOG.warning("%s: another worker took it over meanwhile", cached.model.path)
            except (MorpheusError, OSError) as error:
                _LOG.warning("%s: not hashed, %s", cached.model.path, error)

    def _hash(self, cached: CachedModel) -> None:
        model = cached.model
        claim = self._lock(model.path).try_claim()
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
                write_record(self._layout, _hashed(record, digest, stat.st_mtime_ns))
                _LOG.info("%s: hashed, sha256 %s", model.path, digest)
                return
            _LOG.warning(
                "%s: damaged (its SHA-256 is %s instead of %s), fetched anew; restart any ComfyUI that has loaded it",
                model.path,
                digest,
                expected,
            )
            write_record(self._layout, replace(record, damaged=True))
            self._actions.fetch(model, claim)

    def _wait_for_claim(self, model: ModelSpec, lock: ModelLock) -> Claim:
        while (claim := lock.try_claim()) is None:
            self._report(waiting(model, lock.holder))
            if self._stopping.wait(self._options.lock_times.poll_s):
                raise Stopped
        return claim

    def _lock(self, model_path: str) -> ModelLock:
        lock = self._layout.lock(model_path)
        return ModelLock(model_path, lock, self._options.worker, self._options.lock_times)


def _hashed(record: Record, digest: str, mtime_ns: int) -> Record:
    return replace(record, sha256=digest, expected_sha256=None, mtime_ns=mtime_ns)


def _digest_in(etag: str | None) -> str | None:
    # Hugging Face's X-Linked-Etag is the file's SHA-256.
    return sha256_in((etag or "").strip('"'))
