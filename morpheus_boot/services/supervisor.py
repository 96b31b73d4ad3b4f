"""Supervision: the main thread starts, watches and stops services while the story runs in a thread of its own.

The main thread never touches the network volume and never waits for the story: a call on a volume that hangs
can't be interrupted, and signals must be answered all the same.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.report.state import ServiceState
from morpheus_boot.services.course import Course, Hold, Stage
from morpheus_boot.services.events import (
    Event,
    Signalled,
    StartRequested,
    StoryEnded,
)
from morpheus_boot.services.mailbox import Mailbox
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.reaper import Reaper
from morpheus_boot.services.restarts import Convalescence, Restarts
from morpheus_boot.services.roster import Roster
from morpheus_boot.work.stopping import Stopped, stop_signals

__all__ = ["Hold", "Supervisor"]

_LOG: Final = logging.getLogger("morpheus.run")
# A grandchild that ends sends us no signal: while something is being stopped, look.
_LOOK_S: Final = 0.05
_REAP_S: Final = 1.0
_IDLE_S: Final = 60.0


class Supervisor:
    """The services of one boot. ``start`` and ``last_lines`` are the story's, from any thread."""

    def __init__(
        self,
        *,
        on_line: Callable[[str, str], None],
        on_service: Callable[[ServiceState], None],
        restarts: Restarts,
        grace_s: float = 4.0,
    ) -> None:
        """``on_line(service, line)`` is called from a thread a service, ``on_service`` from the main thread.

        ``grace_s`` lies between TERM and KILL.
        """
        self.stopping = threading.Event()
        """Set as soon as a stop is requested or the boot has failed; the story's long steps look at it."""
        self._grace_s = grace_s
        self._recovery = Convalescence(restarts)
        self._roster = Roster(on_line, on_service, grace_s)
        self._events: Mailbox[Event] = Mailbox()

    def start(self, spec: ServiceSpec) -> None:
        """Starts a service and returns when its process is there.

        Raises:
            ServiceFailed: it can't be started.
            Stopped: nothing is started any more.
        """
        self.raise_if_stopping()
        done: Future[None] = Future()
        self._events.put(StartRequested(spec, done))
        done.result()

    def last_lines(self, name: str) -> tuple[str, ...]:
        """The last lines that a service printed, also after its end; none where it was never started."""
        return self._roster.last_lines(name)

    def raise_if_stopping(self) -> None:
        """For the story, after a step that returns early when ``stopping`` is set. Raises Stopped."""
        if self.stopping.is_set():
            raise Stopped

    def run(
        self,
        story: Callable[[], None],
        *,
        hold: Hold | None = None,
        on_failure: Callable[[BaseException], None] = lambda _error: None,
    ) -> int | None:
        """Runs ``story``, then supervises what it started, until a signal or an error; once, in the main thread.

        When this ends nothing is left running. ``on_failure`` is called when the boot gives up, before the
        others are stopped and before the hold. Returns the signal that stopped it in order, or None where
        the story has ended and had started nothing.

        Raises:
            ServiceFailed: a service ended by itself, and more often than it may.
            BaseException: what the story raised.
        """
        course = Course(self._grace_s, self._recovery, hold)
        with self._events.receiving((*stop_signals(), signal.SIGCHLD), Signalled):
            threading.Thread(target=self._tell, args=(story,), name="story", daemon=True).start()
            try:
                course = self._loop(course, on_failure)
            finally:
                # Where the loop itself failed, which is a bug, the services must not outlive it.
                self._roster.end_all()
        if course.error is not None:
            raise course.error
        return course.signum

    def _tell(self, story: Callable[[], None]) -> None:
        try:
            story()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            self._events.put(StoryEnded(error))
        else:
            self._events.put(StoryEnded(None))

    def _loop(self, course: Course, on_failure: Callable[[BaseException], None]) -> Course:
        reaper = Reaper() if os.getpid() == 1 else None
        events: list[Event] = []
        while True:
            now = time.monotonic()
            for event in events:
                course = course.after(event, now)
                self._answer(event, course)
            # After the queue: a signal that came before an exit is the reason for it.
            for exited in self._roster.take_exits(now):
                course = course.after(exited, now)
            course = course.at(now)
            if course.stage is not Stage.UP and not self.stopping.is_set():
                self.stopping.set()
                if course.signum is not None:
                    _LOG.info("%s: stopping", signal.Signals(course.signum).name)
                if course.error is not None:
                    on_failure(course.error)
            course = self._follow(course, now)
            if not self._roster.names and course.is_over:
                return course
            if reaper is not None:
                reaper.reap(self._roster.pids)
            events = self._events.take(self._patience_s(course, now, reaper))

    def _answer(self, event: Event, course: Course) -> None:
        match event:
            case StartRequested(_, done) if course.stage is not Stage.UP:
                done.set_exception(Stopped())
            case StartRequested(spec, done):
                try:
                    self._roster.start(spec)
                except (ServiceFailed, ValueError) as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

    def _follow(self, course: Course, now: float) -> Course:
        """Makes what runs agree with the course."""
        self._roster.tend(now)
        # After those that are gone were forgotten: the next one's turn may have come.
        for name in course.leaving(self._roster.names, now):
            stopping = course.stage is Stage.STOPPING
            self._roster.stop(name, course.until if stopping else now + self._grace_s)
        for due in course.due:
            if due.at <= now and due.service not in self._roster.names:
                course = self._start_again(due.service, course, now)
        if course.hold is None or course.stage is not Stage.HOLDING:
            return course
        service = course.hold.service
        if service.name not in self._roster.names:
            try:
                self._roster.start(service)
            except ServiceFailed as error:
                _LOG.warning("nothing to hold: %s", error)
                return course.without_hold(now)
        return course

    def _start_again(self, service: str, course: Course, now: float) -> Course:
        try:
            self._roster.start_again(service)
        except ServiceFailed as error:
            return course.after(StoryEnded(error), now)
        return course.started(service)

    def _patience_s(self, course: Course, now: float, reaper: Reaper | None) -> float:
        """How long nothing needs to be done unless something happens."""
        if self._roster.is_stopping:
            return _LOOK_S
        hold_s = course.until - now if course.stage is Stage.HOLDING else _IDLE_S
        due_s = min((due.at - now for due in course.due), default=_IDLE_S)
        return max(0.0, min(hold_s, due_s, _IDLE_S if reaper is None else _REAP_S))
