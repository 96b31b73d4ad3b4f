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
from dataclasses import dataclass
from typing import Final

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.report.state import ServiceStage, ServiceState
from morpheus_boot.services.policy import (
    Event,
    Exited,
    Hold,
    RestartPolicy,
    Run,
    Signalled,
    Stage,
    StoryEnded,
)
from morpheus_boot.services.process import Process, ServiceSpec, ending_text
from morpheus_boot.services.process_table import Reaper
from morpheus_boot.services.signals import EventQueue
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped, stop_signals

_LOG: Final = logging.getLogger("morpheus.run")
# A grandchild that ends sends us no signal: while something is being stopped, look.
_LOOK_S: Final = 0.05
_REAP_S: Final = 1.0
_IDLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _StartRequested:
    """The story wants a service; ``done`` answers it."""

    spec: ServiceSpec
    done: Future[None]


class Supervisor:
    """The services of one boot. ``start`` and ``last_lines`` are the story's, from any thread."""

    def __init__(
        self,
        *,
        on_line: Callable[[str, str], None],
        on_service: Callable[[ServiceState], None],
        restarts: RestartPolicy,
        grace_s: float = 4.0,
    ) -> None:
        """``on_line(service, line)`` is called from a thread a service, ``on_service`` from the main thread.

        ``grace_s`` lies between TERM and KILL.
        """
        self.stopping = threading.Event()
        """Set as soon as a stop is requested or the boot has failed; the story's long steps look at it."""
        self._on_line = on_line
        self._on_service = on_service
        self._restarts = restarts
        self._grace_s = grace_s
        # By name, in the order of their first starts; each stays here after its end, and another takes its place.
        self._processes: dict[str, Process] = {}
        self._events: EventQueue[Event | _StartRequested] = EventQueue()

    def start(self, spec: ServiceSpec) -> None:
        """Starts a service, once a run, and returns when its process is there.

        Raises:
            ServiceFailed: it can't be started.
            Stopped: nothing is started any more.
        """
        self.raise_if_stopping()
        done: Future[None] = Future()
        self._events.put(_StartRequested(spec, done))
        done.result()

    def last_lines(self, name: str) -> tuple[str, ...]:
        """The last lines that a service printed, also after its end; none where it was never started."""
        process = self._processes.get(name)
        return process.last_lines if process else ()

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
        run = Run(self._grace_s, self._restarts, hold)
        with self._events.receiving((*stop_signals(), signal.SIGCHLD), Signalled):
            told = begin(story, "story")
            told.add_done_callback(lambda told: self._events.put(StoryEnded(told.exception())))
            try:
                run = self._loop(run, on_failure)
            finally:
                # Where the loop itself failed, which is a bug, the services must not outlive it.
                for process in self._left.values():
                    process.end()
        if run.error is not None:
            raise run.error
        return run.signum

    @property
    def _left(self) -> dict[str, Process]:
        """Those of which something is left."""
        return {name: process for name, process in self._processes.items() if not process.is_gone}

    def _loop(self, run: Run, on_failure: Callable[[BaseException], None]) -> Run:
        reaper = Reaper() if os.getpid() == 1 else None
        events: list[Event | _StartRequested] = []
        while True:
            now = time.monotonic()
            for event in events:
                if isinstance(event, _StartRequested):
                    self._answer(event, run)
                else:
                    run = run.after(event, now)
            # After the queue: a signal that came before an exit is the reason for it.
            for exited in self._take_exits(now):
                run = run.after(exited, now)
            run = run.at(now)
            if run.stage is not Stage.UP and not self.stopping.is_set():
                self.stopping.set()
                if run.signum is not None:
                    _LOG.info("%s: stopping", signal.Signals(run.signum).name)
                if run.error is not None:
                    on_failure(run.error)
            run = self._follow(run, now)
            if not self._left and run.is_over:
                return run
            if reaper is not None:
                reaper.reap([process.pid for process in self._left.values()])
            events = self._events.take(self._patience_s(run, now, reaper))

    def _answer(self, request: _StartRequested, run: Run) -> None:
        if run.stage is not Stage.UP:
            request.done.set_exception(Stopped())
            return
        try:
            self._start(request.spec)
        except ServiceFailed as error:
            request.done.set_exception(error)
        else:
            request.done.set_result(None)

    def _take_exits(self, now: float) -> list[Exited]:
        """The services whose first process has ended since the last call; what they left behind is stopped."""
        exits = []
        for name, process in self._left.items():
            code = process.take_exit_code()
            if code is not None:
                exits.append(Exited(name, code, process.last_lines, now - process.started_at))
                _LOG.info("%s ended: %s", name, ending_text(code))
                self._say(process, ServiceStage.ENDED, ending_text(code))
                process.request_stop(now + self._grace_s)
        return exits

    def _follow(self, run: Run, now: float) -> Run:
        """Makes what runs agree with the run as it was decided."""
        for name, process in self._left.items():
            trouble = process.look(now)
            if trouble is not None:
                _LOG.warning("%s: %s", name, trouble)
            if trouble is not None and process.is_gone:
                self._say(process, ServiceStage.RUNNING, trouble)
        # Without those that are gone by now: the next one's turn may have come.
        left = self._left
        for name in run.leaving(tuple(left), now):
            kill_at = run.until if run.stage is Stage.STOPPING else now + self._grace_s
            left[name].request_stop(kill_at)
        for service, at in run.due.items():
            if at <= now and service not in left:
                run = self._start_again(service, run, now)
        if run.hold is None or run.stage is not Stage.HOLDING or run.hold.service.name in left:
            return run
        try:
            self._start(run.hold.service)
        except ServiceFailed as error:
            _LOG.warning("nothing to hold: %s", error)
            return run.stopping(now)
        return run

    def _start_again(self, service: str, run: Run, now: float) -> Run:
        try:
            self._start(self._processes[service].spec)
        except ServiceFailed as error:
            return run.after(StoryEnded(error), now)
        return run.started(service)

    def _start(self, spec: ServiceSpec) -> None:
        process = Process(spec, lambda line: self._on_line(spec.name, line))
        self._processes[spec.name] = process
        _LOG.info("%s started, pid %d", spec.name, process.pid)
        self._say(process, ServiceStage.RUNNING, "")

    def _say(self, process: Process, stage: ServiceStage, detail: str) -> None:
        spec = process.spec
        self._on_service(ServiceState(spec.name, stage, spec.port, process.pid, detail))

    def _patience_s(self, run: Run, now: float, reaper: Reaper | None) -> float:
        """How long nothing needs to be done unless something happens."""
        if any(process.stop_requested for process in self._left.values()):
            return _LOOK_S
        hold_s = run.until - now if run.stage is Stage.HOLDING else _IDLE_S
        due_s = min((at - now for at in run.due.values()), default=_IDLE_S)
        return max(0.0, min(hold_s, due_s, _IDLE_S if reaper is None else _REAP_S))
