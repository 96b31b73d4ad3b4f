"""Carries out one step of a plan under its claim: adopt, link, fetch."""

import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.adopt import is_whole
from morpheus_boot.cache.checks import complaint, proves_completeness
from morpheus_boot.cache.fetch import Fetcher
from morpheus_boot.cache.lock.lock import Claim
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.origins.resolutions import Resolutions
from morpheus_boot.cache.parts import Version, drop_parts
from morpheus_boot.cache.planner import Action, CachedModel, Step, decide
from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.cache.reports import fetching
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.cache.transfer.transfer import Engine
from morpheus_boot.errors import MorpheusError, StorageFailed
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelState, utc_now
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import Volume
from morpheus_boot.volume.publish import require_place

_LOG: Final = logging.getLogger("morpheus.cache")
READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Actions:
    """What every step of one fill needs."""

    layout: Layout
    worker: str
    resolutions: Resolutions
    fetcher: Fetcher
    replace_in_place: bool
    on_progress: Callable[[ModelSpec, Reading], None]

    def carry_out(self, step: Step, claim: Claim) -> CachedModel:
        """Does what the step says, and fetches where a file that was found turns out not to do.

        Raises MorpheusError, Stopped, TakenOver; OSError where the volume fails.
        """
        if step.action is Action.BLOCKED:
            raise blocked(step)
        if step.action is Action.ADOPT and (adopted := self._adopt(step)) is not None:
            return adopted
        if step.action is Action.LINK and (linked := self._link(step)) is not None:
            return linked
        return self.fetch(step.model, claim)

    def take_as_it_lies(self, step: Step, error: OSError) -> CachedModel:
        """A whole file on a volume that can't be written, without a claim: nothing will change there.

        Raises ``error``, that of the volume, where the model would have to be brought in.
        """
        taken: CachedModel | None = None
        if step.action is Action.ADOPT and step.found is None:
            taken = self._adopt(step, tidy=False)
        elif step.action is Action.LINK:
            taken = self._link(step)
        if taken is None:
            raise error
        return taken

    def fetch(self, model: ModelSpec, claim: Claim) -> CachedModel:
        """Brings the model in from its origin, whatever is there. Raises as carry_out() does."""
        final = self.layout.model(model.path)
        require_place(final, self.layout.parts)
        resolved = self.resolutions.of(model)
        size_bytes = resolved.version.size_bytes or model.size_bytes
        if self.replace_in_place and final.exists():
            self.layout.record(model.path).unlink(missing_ok=True)
            final.unlink()

        def on_progress(reading: Reading) -> None:
            claim.progress(reading.done_bytes, reading.size_bytes)
            self.on_progress(model, reading)

        on_progress(Reading(0, size_bytes))
        self.fetcher.fetch(
            model,
            self.resolutions.origin(model),
            resolved,
            inherits=claim.inherits,
            on_progress=on_progress,
            already_there=lambda: as_it_lies(decide(model, self.layout)) is not None,
        )
        return CachedModel(model, final)

    def _adopt(self, step: Step, *, tidy: bool = True) -> CachedModel | None:
        """The file that is there, if it is whole; None where the model must be fetched."""
        model, file = step.model, step.found or step.file
        # Before it is read: the record is of the file that was found whole.
        stat = file.stat()
        wrong, version = is_whole(
            file, model, lambda: self.resolutions.of(model).version, self.fetcher.stopping
        )
        if wrong:
            _LOG.warning("%s: %s can't be taken over: %s", model.path, file, wrong)
            return None
        if step.found is not None:
            step.file.parent.mkdir(parents=True, exist_ok=True)
            step.found.rename(step.file)
        self._record(model, stat, version, sha256=model.sha256)
        _LOG.info("%s: taken over, %s", model.path, step.reason)
        if tidy:
            # A worker killed between its publication and its record has left its journal.
            drop_parts(self.layout, model.path)
        return CachedModel(model, step.file, hash_later=model.sha256 is None)

    def _link(self, step: Step) -> CachedModel | None:
        """The file in RunPod's own cache, if it is the one that models.yaml means."""
        model, hub = step.model, step.hub
        if hub is None:
            return None
        stat = hub.path.stat()
        wrong = complaint(hub.path, model.path)
        version: Version | None = None
        try:
            resolved = self.resolutions.of(model)
        except MorpheusError as error:
            if model.size_bytes is None and not proves_completeness(hub.path, model.path):
                raise
            _LOG.warning("%s: linked as it is, %s", model.path, error.cause)
        else:
            version = resolved.version
            same_file = version.sha256 is not None and version.sha256 == hub.sha256
            if resolved.commit != hub.commit and not same_file:
                wrong = wrong or f"it is of commit {hub.commit}, the origin has {resolved.commit}"
        sizes = {model.size_bytes, version.size_bytes if version else None} - {None}
        digests = {model.sha256, version.sha256 if version else None} - {None}
        if sizes - {hub.size_bytes}:
            wrong = wrong or f"it has {hub.size_bytes} bytes instead of {max(filter(None, sizes))}"
        if hub.sha256 and digests - {hub.sha256}:
            wrong = wrong or f"its SHA-256 is {hub.sha256}"
        if wrong:
            _LOG.warning("%s: %s can't be linked: %s", model.path, hub.path, wrong)
            return None
        self._record(model, stat, version, sha256=hub.sha256, hub_file=hub.path)
        _LOG.info("%s: linked to RunPod's own cache, %s", model.path, hub.path)
        return CachedModel(model, hub.path)

    def _record(
        self,
        model: ModelSpec,
        stat: os.stat_result,
        version: Version | None,
        *,
        sha256: str | None,
        hub_file: Path | None = None,
    ) -> None:
        record = Record(
            path=model.path,
            origin=model.source.identity,
            etag=version.etag if version else None,
            sha256=sha256,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            recorded_at=utc_now(),
            by=self.worker,
            hub_file=str(self._below_root(hub_file)) if hub_file else None,
            expected_sha256=version.sha256 if version and sha256 is None else None,
        )
        try:
            write_record(self.layout, record)
        except OSError as error:
            # What is there is whole, so that a read-only volume boots; each boot asks again.
            if error.errno not in READ_ONLY:
                raise
            _LOG.warning("%s: not recorded, the volume is not writable", model.path)

    def _below_root(self, path: Path) -> Path:
        # Other workers may see the same volume under another path.
        root = self.layout.root
        return path.relative_to(root) if path.is_relative_to(root) else path


def make_actions(
    volume: Volume,
    options: FillOptions,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> Actions:
    """The actions of one worker on one volume, with connections of their own."""
    times = options.transfer_times
    engine = Engine(times, stopping)

    return Actions(
        layout=volume.layout,
        worker=options.worker,
        resolutions=Resolutions(options.credentials, engine.client, times.retry, stopping),
        fetcher=Fetcher(volume.layout, options.worker, engine, times, stopping),
        replace_in_place=options.replace_in_place,
        on_progress=lambda model, reading: report(fetching(model, reading)),
    )


def as_it_lies(step: Step) -> CachedModel | None:
    """The model, where it is there as recorded or at least passes its check; None where something must be done.

    Raises OSError.
    """
    if step.action is Action.RECHECK and complaint(step.file, step.model.path) is None:
        _LOG.warning("%s: %s; it is hashed again in the background", step.model.path, step.reason)
        return step.as_cached()
    return step.as_cached() if step.action is Action.PRESENT else None


def blocked(step: Step) -> StorageFailed:
    """The error for a model with something in its way that is not ours to remove."""
    return StorageFailed(step.model.path, step.reason, step.mend)
