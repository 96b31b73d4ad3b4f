"""Carries a plan out: each model under its own lock, so that a cold fleet fills together."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

from morpheus_boot.background import together
from morpheus_boot.cache.actions import READ_ONLY, as_it_lies, blocked, make_actions
from morpheus_boot.cache.fetch import TakenOver
from morpheus_boot.cache.lock import ModelLock
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.planner import Action, CachedModel, Plan, Step, decide
from morpheus_boot.cache.room import Room, look_for_room, require_room
from morpheus_boot.errors import MorpheusError, VolumeFull, all_of, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.state import ModelStage, ModelState
from morpheus_boot.stopping import Stopped
from morpheus_boot.volume import Volume

_LOG: Final = logging.getLogger("morpheus.cache")


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
        self._volume = volume
        self._layout = volume.layout
        self._options = options
        self._stopping = stopping
        self._report = _one_at_a_time(report)
        self._actions = make_actions(volume, options, stopping=stopping, report=self._report)
        self.resolutions = self._actions.resolutions

    def price(self, plan: Plan) -> Room:
        """Asks the origins for the sizes of what is missing, and measures the volume.

        What an origin refused is in ``resolutions``. Raises OSError, Stopped.
        """
        wanted = [s for s in plan.steps if s.needs_bytes]
        self.resolutions.ask_all(s.model for s in wanted)
        sizes = [self.resolutions.size_bytes(s.model) for s in wanted]
        replaced = sum(
            s.record.size_bytes for s in wanted if s.action is Action.REFETCH and s.record
        )
        return look_for_room(
            self._volume,
            sum(size for size in sizes if size is not None),
            replaced,
            unknown=sizes.count(None),
            with_jobs=False,
        )

    def fill(self, plan: Plan) -> tuple[CachedModel, ...]:
        """Does what the plan says; returns the models in its order.

        A model that another worker holds is left for later, and the next free one is taken.

        Raises:
            VolumeFull: what is missing does not fit; nothing was fetched.
            MorpheusError: of every model that failed; the others are there all the same.
            Stopped: ``stopping`` was set; what was synced stays for the next worker.
            OSError: the volume can't be measured.
        """
        if any(s.needs_bytes for s in plan.steps):
            require_room(
                self.price(plan), self._volume, replace_in_place=self._options.replace_in_place
            )
        done = {s.model.path: s.as_cached() for s in plan.steps if s.action is Action.PRESENT}
        failed: dict[str, MorpheusError] = {}
        for path, outcome in self._work_through(plan):
            if isinstance(outcome, MorpheusError):
                failed[path] = outcome
            else:
                done[path] = outcome
        if failed:
            raise all_of([failed[s.model.path] for s in plan.steps if s.model.path in failed])
        return tuple(done[s.model.path] for s in plan.steps)

    def _work_through(self, plan: Plan) -> Iterator[tuple[str, CachedModel | MorpheusError]]:
        pending = [(step, self._lock(step.model)) for step in plan.work]
        while pending:
            taken = []
            at_once = self._options.transfer_times.models
            outcomes = together(lambda each: self._outcome(*each), pending, at_once)
            for (step, lock), outcome in zip(pending, outcomes, strict=True):
                if outcome is None:
                    taken.append((step, lock))
                else:
                    yield step.model.path, outcome
            if len(taken) == len(pending):
                self._stopping.wait(self._options.lock_times.poll_s)
            pending = taken

    def _outcome(self, step: Step, lock: ModelLock) -> CachedModel | MorpheusError | None:
        """The model or its error, reported; or None while another worker holds it. Raises Stopped."""
        if self._stopping.is_set():
            raise Stopped
        outcome = self._attempt(step, lock)
        if outcome is not None:
            self._report_outcome(step.model, outcome)
        else:
            # By the time that it is this worker's turn, its origin may have moved on.
            self.resolutions.forget(step.model)
        return outcome

    def _attempt(self, step: Step, lock: ModelLock) -> CachedModel | MorpheusError | None:
        path = step.model.path
        try:
            return self._try(step, lock)
        except TakenOver:
            _LOG.warning("%s: another worker took it over meanwhile", path)
            return None
        except MorpheusError as error:
            return error
        except OSError as error:
            translated = storage_error(path, self._layout.model(path), error)
            return self._with_numbers(translated)

    def _try(self, step: Step, lock: ModelLock) -> CachedModel | None:
        model = step.model
        if step.action is Action.BLOCKED:
            raise blocked(step)
        there = as_it_lies(step)
        if there is not None:
            return there
        try:
            claim = lock.try_claim()
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            return self._actions.take_as_it_lies(step, error)
        if claim is None:
            # Whoever holds it may have published it, and hold it only because its host is lost.
            there = as_it_lies(self._decide(model))
            if there is None:
                self._report_waiting(model, lock)
            return there
        with claim:
            again = self._decide(model)
            return as_it_lies(again) or self._actions.carry_out(again, claim)

    def _decide(self, model: ModelSpec) -> Step:
        return decide(model, self._layout, self._options.hub_roots)

    def _lock(self, model: ModelSpec) -> ModelLock:
        lock = self._layout.lock(model.path)
        return ModelLock(model.path, lock, self._options.worker, self._options.lock_times)

    def _with_numbers(self, error: MorpheusError) -> MorpheusError:
        if not isinstance(error, VolumeFull):
            return error
        try:
            room = look_for_room(self._volume, with_jobs=True)
        except OSError:
            return error
        return VolumeFull(error.subject, f"{error.cause}: {room.summary}", error.mend)

    def _report_waiting(self, model: ModelSpec, lock: ModelLock) -> None:
        holder = lock.holder
        self._report(
            ModelState(
                model.path,
                ModelStage.WAITING,
                holder.done_bytes if holder else 0,
                holder.size_bytes if holder else None,
                required=model.required,
                detail=f"{holder.worker} fetches it" if holder else "another worker fetches it",
            )
        )

    def _report_outcome(self, model: ModelSpec, outcome: CachedModel | MorpheusError) -> None:
        if isinstance(outcome, MorpheusError):
            self._report(
                ModelState(
                    model.path,
                    ModelStage.FAILED,
                    required=model.required,
                    detail=f"{outcome.cause}; {outcome.mend}",
                )
            )
            return
        size_bytes = outcome.file.stat().st_size
        self._report(
            ModelState(
                model.path, ModelStage.PRESENT, size_bytes, size_bytes, required=model.required
            )
        )


def _one_at_a_time(report: Callable[[ModelState], None]) -> Callable[[ModelState], None]:
    """``report`` for several threads: who renders need not think of them."""
    lock = threading.Lock()

    def reported(state: ModelState) -> None:
        with lock:
            report(state)

    return reported
