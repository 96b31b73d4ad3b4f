"""Carries a plan out: each model under its own lock, so that a cold fleet fills together."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from morpheus_boot.cache import reports
from morpheus_boot.cache.actions import READ_ONLY, as_it_lies, blocked, make_actions
from morpheus_boot.cache.demand import Demand
from morpheus_boot.cache.fetch import TakenOver
from morpheus_boot.cache.line import work_through
from morpheus_boot.cache.lock.lock import MOST_POLLS, ModelLock
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.planner import Action, CachedModel, Plan, Step, decide
from morpheus_boot.errors import (
    MorpheusError,
    VolumeFull,
    WaitedTooLong,
    all_of,
    storage_error,
)
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.mount import Volume
from morpheus_boot.volume.presence import Presence
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")


@dataclass(slots=True)
class _Turn:
    """A step until it is done: its model's lock, and its record as it was last seen."""

    step: Step
    lock: ModelLock
    record: Path
    _seen: tuple[int, int] | None = field(default=None, init=False)

    def look_at_record(self) -> bool:
        """Whether it is another record than at the last look. Raises OSError."""
        try:
            found = self.record.stat()
            seen = (found.st_ino, found.st_mtime_ns)
        except FileNotFoundError:
            seen = None
        changed, self._seen = seen != self._seen, seen
        return changed


class Filler:
    """One worker's fill of one volume."""

    def __init__(
        self,
        volume: Volume,
        options: FillOptions,
        *,
        stopping: threading.Event,
        report: Callable[[ModelState], None],
    ) -> None:
        self._layout = volume.layout
        self._presence = Presence(volume.layout)
        self._options = options
        self._stopping = stopping
        self._report = reports.one_at_a_time(report)
        self._actions = make_actions(volume, options, stopping=stopping, report=self._report)
        self.resolutions = self._actions.resolutions
        self.demand = Demand(volume, options, self.resolutions)

    def fill(self, plan: Plan) -> tuple[CachedModel, ...]:
        """Does what the plan says; returns the models in its order.

        A model that another worker holds is left for later, and the next free one is taken.

        Raises:
            VolumeFull: what is missing does not fit; nothing was fetched.
            MorpheusError: of every model that failed; the others are there all the same.
            Stopped: ``stopping`` was set; what was synced stays for the next worker.
            OSError: the volume can't be measured.
        """
        self.demand.require_room(plan)
        done: dict[str, CachedModel] = {}
        failed: dict[str, MorpheusError] = {}
        for step, outcome in self._work_through(plan.steps):
            if isinstance(outcome, MorpheusError):
                failed[step.model.path] = outcome
            else:
                done[step.model.path] = outcome
        if failed:
            raise all_of([failed[s.model.path] for s in plan.steps if s.model.path in failed])
        return tuple(done[s.model.path] for s in plan.steps)

    def fill_what_fits(self, plan: Plan) -> Iterator[CachedModel | MorpheusError]:
        """As fill(), but each model, or its error, as it comes; where not all fit, the last ones are left out.

        Raises Stopped; OSError, the volume can't be measured.
        """
        steps = plan.steps
        while steps:
            try:
                self.demand.require_room(Plan(steps))
                break
            except VolumeFull as full:
                steps = self.demand.decide_again(steps)
                sized = [s for s in steps if s.needs_bytes and self.resolutions.size_bytes(s.model)]
                for step in sized[-1:]:
                    error = VolumeFull(step.model.path, full.cause, full.mend)
                    self._report(reports.outcome_of(step.model, error))
                    yield error
                    steps = tuple(s for s in steps if s is not step)
        for _, outcome in self._work_through(steps):
            yield outcome

    def _work_through(
        self, steps: Iterable[Step]
    ) -> Iterator[tuple[Step, CachedModel | MorpheusError]]:
        """Each step with the model or its error, as they come; what was not there is reported. Raises Stopped."""
        turns = []
        for step in steps:
            if step.action is Action.PRESENT:
                yield step, step.as_cached()
            else:
                record = self._layout.record(step.model.path)
                turns.append(_Turn(step, self._lock(step.model), record))
        outcomes: Iterator[tuple[_Turn, CachedModel | MorpheusError]] = work_through(
            turns,
            self._attempt,
            self._is_worth_a_try,
            at_once=self._options.transfer_times.models,
            poll_s=self._options.lock_times.poll_s,
            most_polls=MOST_POLLS,
            stopping=self._stopping,
        )
        for turn, outcome in outcomes:
            yield turn.step, outcome

    def _attempt(self, turn: "_Turn") -> CachedModel | MorpheusError | None:
        """The model or its error; or None while another worker holds it. Raises Stopped."""
        if self._stopping.is_set():
            raise Stopped
        model = turn.step.model
        try:
            self._presence.require()
            there = self._try(turn)
            if there is None:
                # By the time that it is this worker's turn, its origin may have moved on.
                self.resolutions.forget(model)
            else:
                self._report(reports.outcome_of(model, there))
        except TakenOver:
            _LOG.warning("%s: another worker took it over meanwhile", model.path)
            self.resolutions.forget(model)
            return None
        except MorpheusError as error:
            failed = error
        except OSError as error:
            translated = storage_error(model.path, self._layout.model(model.path), error)
            failed = self.demand.with_numbers(translated, turn.step)
        else:
            return there
        self._report(reports.outcome_of(model, failed))
        return failed

    def _try(self, turn: "_Turn") -> CachedModel | None:
        step = turn.step
        if step.action is Action.BLOCKED:
            raise blocked(step)
        there = as_it_lies(step)
        if there is not None:
            return there
        turn.look_at_record()
        try:
            claim = turn.lock.try_claim()
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            return self._actions.take_as_it_lies(step, error)
        if claim is None:
            # Whoever holds it may have published it, and hold it only because its host is lost, or to hash it.
            return as_it_lies(self._decide(step.model))
        with claim:
            again = self._decide(step.model)
            return as_it_lies(again) or self._actions.carry_out(again, claim)

    def _is_worth_a_try(self, turn: _Turn, only_waits: bool) -> bool:  # noqa: FBT001 - as the line calls it
        """Whether a model that was taken may be free or there by now; says else who holds it, and how far that is."""
        try:
            if not turn.lock.is_held(waits=only_waits) or turn.look_at_record():
                return True
        except (WaitedTooLong, OSError):
            return True  # the try says what is wrong
        self._report(reports.waiting(turn.step.model, turn.lock.holder))
        return False

    def _decide(self, model: ModelSpec) -> Step:
        return decide(model, self._layout, self._options.hub_roots)

    def _lock(self, model: ModelSpec) -> ModelLock:
        lock = self._layout.lock(model.path)
        return ModelLock(model.path, lock, self._options.worker, self._options.lock_times)
