"""A fill: brings models into the cache, each under its own lock, so that a cold fleet fills together.

``Filler.bring_in`` is the whole story of one model; the rest says when it is told, and what failed.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from morpheus_boot.cache.adopt import READ_ONLY, take_over
from morpheus_boot.cache.checks import TooShort, complaint
from morpheus_boot.cache.lock.lock import MOST_POLLS, ModelLock
from morpheus_boot.cache.manifests import require_no_conflict
from morpheus_boot.cache.options import FillContext
from morpheus_boot.cache.origins.resolutions import Resolutions
from morpheus_boot.cache.parts import ModelPart, Version, drop_parts, open_part
from morpheus_boot.cache.planner import Action, CachedModel, Step, as_it_lies, decide
from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.cache.reports import fetching, outcome_of, waiting
from morpheus_boot.cache.room import Room, decide_again, price, require_room, with_numbers
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.cache.transfer.stream import VersionChanged
from morpheus_boot.cache.transfer.transfer import Engine
from morpheus_boot.errors import (
    MorpheusError,
    OriginUnavailable,
    VolumeFull,
    is_full,
    storage_error,
)
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.journal import journal_of
from morpheus_boot.volume.mount import size_text
from morpheus_boot.volume.presence import Presence
from morpheus_boot.volume.publish import publish, require_place
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
_MOST_BEGINNINGS: Final = 3
# Each try at a model that another worker holds is three calls on the volume: some dozens a second are enough.
_TRIES_A_POLL: Final = 16


class BeginAnew(Exception):
    """What was begun is for nothing: the origin has other bytes now, or those that were there are damaged."""


class TakenOver(Exception):
    """Another worker took this model over while this one was silent, and dropped its part."""


class Damaged(Exception):
    """What arrived is not what was promised."""


@dataclass(slots=True)
class _Pending:
    """A step that is not done yet; ``due_s``: when it is to be tried, by time.monotonic()."""

    step: Step
    lock: ModelLock
    due_s: float = 0.0
    beginnings: int = 0


class Filler:
    """One worker's fill of one volume, with connections of its own."""

    def __init__(self, context: FillContext) -> None:
        options = context.options
        self._context = context
        self._reporting = threading.Lock()
        self._presence = Presence(context.layout)
        self._engine = Engine(options.transfer_times, context.stopping)
        self.resolutions = Resolutions(
            options.credentials,
            self._engine.client,
            options.transfer_times.retry,
            context.stopping,
        )

    def preflight(self, steps: Iterable[Step]) -> None:
        """Looks at what is better known before anything is fetched.

        Raises:
            ManifestError: another endpoint names one of the paths with another origin.
            VolumeFull: what is missing does not fit.
            StorageFailed: the volume can't be measured.
            Stopped.
        """
        context = self._context
        if not any(step.needs_bytes for step in steps):
            return
        try:
            if context.manifest is not None:
                require_no_conflict(context.layout, context.manifest)
            in_place = context.options.replace_in_place
            require_room(self.price(steps), context.volume, replace_in_place=in_place)
        except OSError as error:
            raise storage_error("volume", context.volume.root, error) from error

    def fill(self, steps: Iterable[Step]) -> Iterator[tuple[Step, CachedModel | MorpheusError]]:
        """Each step with its model or its error, as they come, a few at once.

        A model that another worker holds is left for later, and the next free one is taken.
        Raises Stopped, where it is to end; what was synced stays for the next worker.
        """
        options, stopping = self._context.options, self._context.stopping
        poll_s = options.lock_times.poll_s
        pending = deque[_Pending]()
        for step in steps:
            if step.action is Action.PRESENT:
                yield step, step.as_cached()
            else:
                pending.append(_Pending(step, model_lock(step.model.path, self._context)))
        at_work: dict[Future[CachedModel | None], _Pending] = {}
        try:
            while pending or at_work:
                if stopping.is_set():
                    raise Stopped
                while pending and len(at_work) < options.transfer_times.models:
                    if pending[0].due_s > time.monotonic():
                        break
                    each = pending.popleft()
                    at_work[begin(partial(self.bring_in, each.step, each.lock), "fill")] = each
                if not at_work:
                    stopping.wait(poll_s)
                for future in wait(at_work, poll_s, FIRST_COMPLETED).done:
                    each = at_work.pop(future)
                    outcome = self._outcome(each, future)
                    if outcome is None:
                        polls = min(MOST_POLLS, 1 + len(pending) // _TRIES_A_POLL)
                        each.due_s = time.monotonic() + polls * poll_s
                        pending.append(each)
                    else:
                        yield each.step, outcome
        finally:
            wait(at_work)

    def bring_in(self, step: Step, lock: ModelLock) -> CachedModel | None:
        """One model: decide, claim, decide again, part, transfer, check, publish, record.

        Whatever dies in between: the model's name is whole or absent, the journal names only bytes that are durable,
        and the record is last. None while another worker has the claim: it is to be tried again then.

        Raises:
            OriginDenied, OriginUnavailable: the origin refuses, fails, or does not send the model.
            StorageFailed: something that is not ours to remove is in its way.
            WaitedTooLong: the claim did not come in time.
            BeginAnew, TakenOver: it is to be tried again, too.
            Stopped.
            OSError: the volume fails; where it is full the part is gone, so that jobs can still write.
        """
        context, model = self._context, step.model
        layout, options = context.layout, context.options
        final = layout.model(model.path)

        self._presence.require()
        there = as_it_lies(step)
        if there is not None:
            return there
        try:
            claim = lock.try_claim()
        except OSError as error:
            return self._take_without_claim(step, error)
        if claim is None:
            # By the time that it is this worker's turn, its origin may have moved on.
            self.resolutions.forget(model)
            # Whoever holds it may have published it, and only hash it now.
            return as_it_lies(decide(model, layout))
        with claim:
            step = decide(model, layout, options.hub_roots)
            there = as_it_lies(step) or take_over(step, context, self.resolutions)
            if there is not None:
                # A worker killed between its publication and its record has left its journal.
                drop_parts(layout, model.path)
                return there

            require_place(final, layout.parts)
            resolved = self.resolutions.of(model)
            if options.replace_in_place and final.exists():
                layout.record(model.path).unlink(missing_ok=True)
                final.unlink()

            def on_progress(reading: Reading) -> None:
                claim.progress(reading.done_bytes, reading.size_bytes)
                self._report(fetching(model, reading))

            on_progress(Reading(0, resolved.version.size_bytes))
            with self._part(model, resolved.version, inherits=claim.inherits) as part:
                origin = self.resolutions.origin(model)
                digest = self._engine.fetch(origin, resolved, part, on_progress)
                _check(part, model, resolved.version, digest)
                # Before the publication: after it, the name may be another worker's already.
                stat = part.finish()
                if as_it_lies(decide(model, layout)) is not None:
                    # Whoever was silent for a while must not replace what others use by now.
                    part.discard()
                    return CachedModel(model, final)
                try:
                    publish(part.path, final)
                finally:
                    part.close()
                # Before the record: a model that has one is asked about no more, and nobody would remove it.
                journal_of(part.path).unlink(missing_ok=True)
                record = Record.of(model, resolved.version, stat, digest, by=options.worker)
                write_record(layout, record)
        return CachedModel(model, final)

    def _take_without_claim(self, step: Step, error: OSError) -> CachedModel:
        """A whole file on a volume where nothing will change, since it can't be written; else raises ``error``."""
        there: CachedModel | None = None
        if error.errno in READ_ONLY and step.found is None:
            there = take_over(step, self._context, self.resolutions)
        if there is None:
            raise error
        return there

    @contextmanager
    def _part(self, model: ModelSpec, version: Version, *, inherits: bool) -> Iterator[ModelPart]:
        """The part to bring the model in with; it stays for the next worker, unless it is good for nothing."""
        try:
            part = open_part(
                self._context.layout,
                model.path,
                version,
                inherits=inherits,
                chunk_bytes=self._context.options.transfer_times.chunk_bytes,
            )
        except FileNotFoundError as error:
            # Where the lock lets two in, the other one has just published or dropped it.
            raise TakenOver from error
        there_bytes = part.written_bytes
        if there_bytes:
            _LOG.info("%s: going on, %s are there", model.path, size_text(there_bytes))
        try:
            yield part
        except (VersionChanged, Damaged) as error:
            part.discard()
            self.resolutions.forget(model)
            if isinstance(error, Damaged) and not there_bytes:
                raise OriginUnavailable(
                    model.path,
                    f"what {version.origin} sends is damaged or not the model: {error}",
                    "check its origin in models.yaml, its sha256 and size if given, and a token if it wants one",
                ) from error
            raise BeginAnew(str(error)) from error
        except OSError as error:
            if _is_taken(part, model, error):
                raise TakenOver from error
            raise
        finally:
            part.close()

    def _outcome(
        self, each: _Pending, future: Future[CachedModel | None]
    ) -> CachedModel | MorpheusError | None:
        """What became of a try, reported; None where it is to be tried again. Raises Stopped."""
        model, context = each.step.model, self._context
        outcome: CachedModel | MorpheusError | None
        try:
            outcome = future.result()
            state = outcome_of(model, outcome) if outcome else waiting(model, each.lock.holder)
        except TakenOver:
            _LOG.warning("%s: another worker took it over meanwhile", model.path)
            return None
        except BeginAnew as error:
            each.beginnings += 1
            if each.beginnings < _MOST_BEGINNINGS:
                _LOG.warning("%s: %s; beginning anew", model.path, error)
                return None
            outcome = OriginUnavailable(
                model.path,
                f"its origin changed {_MOST_BEGINNINGS} times while it was fetched",
                "try again when it is quiet, or name a fixed revision",
            )
            state = outcome_of(model, outcome)
        except OSError as error:
            failure = storage_error(model.path, context.layout.model(model.path), error)
            outcome = with_numbers(failure, each.step, context)
            state = outcome_of(model, outcome)
        except MorpheusError as error:
            outcome, state = error, outcome_of(model, error)
        self._report(state)
        return outcome

    def _report(self, state: ModelState) -> None:
        with self._reporting:
            self._context.report(state)

    def price(self, steps: Iterable[Step]) -> Room:
        """Room for these steps, for which the origins are asked: what one refused is in ``resolutions`` then."""
        return price(steps, self._context, self.resolutions)

    def leave_out(self, steps: tuple[Step, ...]) -> Iterator[tuple[Step, VolumeFull]]:
        """The last of the steps, each with its error, until the others fit. Raises as preflight() else."""
        while True:
            try:
                self.preflight(steps)
            except VolumeFull as full:
                steps = decide_again(steps, self._context)
                sized = [s for s in steps if s.needs_bytes and self.resolutions.size_bytes(s.model)]
                for step in sized[-1:]:
                    error = VolumeFull(step.model.path, full.cause, full.mend)
                    self._report(outcome_of(step.model, error))
                    yield step, error
                    steps = tuple(s for s in steps if s is not step)
            else:
                return


def _check(part: ModelPart, model: ModelSpec, version: Version, digest: str) -> None:
    """Raises Damaged where what arrived is not what was promised; OSError."""
    if version.sha256 is not None and digest != version.sha256:
        raise Damaged(f"its SHA-256 is {digest}, not {version.sha256}")
    wrong = complaint(part.path, model.path)
    if wrong and (version.sha256 is None or isinstance(wrong, TooShort)):
        raise Damaged(wrong)
    if wrong:
        _LOG.warning("%s: its SHA-256 is the right one, but %s", model.path, wrong)


def _is_taken(part: ModelPart, model: ModelSpec, error: OSError) -> bool:
    """Whether a part failed since another worker has taken its name; where the volume is full, the part goes."""
    # A host that was cut off for three minutes comes back to EIO. A part that is closed may be gone by our own hand.
    may_be_taken = part.is_open or isinstance(error, FileNotFoundError)
    is_there = part.path.exists()
    if is_full(error):
        # Without its name it was published, and only its record has found no room.
        if is_there:
            _LOG.warning(
                "%s: the rest has no room; the %s that had come are removed again, so that jobs can write",
                model.path,
                size_text(part.written_bytes),
            )
        part.discard()
    return may_be_taken and not is_there


def model_lock(model_path: str, context: FillContext) -> ModelLock:
    """The lock of a model, as this worker sees it."""
    options = context.options
    return ModelLock(
        model_path, context.layout.lock(model_path), options.worker, options.lock_times
    )
