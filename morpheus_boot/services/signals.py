"""Signals as events on which the main thread can sleep, beside all else that happens."""

import math
import os
import select
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Generic, TypeVar

from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import stop_signals

_Event = TypeVar("_Event")
_Outcome = TypeVar("_Outcome")


class EventQueue(Generic[_Event]):
    """Anyone puts, from any thread or signal handler; one thread takes.

    It wakes by a pipe, not by a lock: the kernel may hand a signal to any thread, and a main thread that waits
    for a lock then sleeps on (the reason for signal.set_wakeup_fd).
    """

    def __init__(self) -> None:
        self._events: deque[_Event] = deque()
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Not at exit: a thread that is still there may put something.
        closing = weakref.finalize(self, _close, self._read_fd, self._write_fd)
        closing.atexit = False

    def put(self, event: _Event) -> None:
        """Adds ``event`` and wakes the taker."""
        self._events.append(event)
        with suppress(BlockingIOError):  # a full pipe wakes it, too
            os.write(self._write_fd, b"\0")

    def take(self, timeout_s: float | None = None) -> list[_Event]:
        """All events in their order; waits for the first, at most ``timeout_s``, and may return without any."""
        wakeup = select.poll()
        wakeup.register(self._read_fd, select.POLLIN)
        wakeup.poll(None if timeout_s is None else timeout_s * 1000)
        # Emptied before the events are taken: what comes in between wakes once too often, not once too little.
        with suppress(BlockingIOError):
            os.read(self._read_fd, 65536)
        return [self._events.popleft() for _ in range(len(self._events))]

    @contextmanager
    def receiving(
        self, signals: Iterable[int], as_event: Callable[[int], _Event]
    ) -> Iterator[None]:
        """Puts each of ``signals`` that comes meanwhile. For the main thread, which is to be the taker."""

        def handle(signum: int, _frame: FrameType | None) -> None:
            self.put(as_event(signum))

        before = {signum: signal.signal(signum, handle) for signum in signals}
        fd_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for signum, handler in before.items():
                # None: it was not set from Python, and so can't be set back from it.
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class Interrupted(Exception):
    """A signal ended the work before its time; ``128 + signum`` is the exit code that says so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run_to_end(work: Callable[[threading.Event], _Outcome], *, grace_s: float = 4.0) -> _Outcome:
    """Runs ``work`` in a thread of its own and returns what it returns; called from the main thread.

    On a signal the event given to ``work`` is set; it then has ``grace_s`` to save what it holds. It is not
    waited for any longer, since a call on a volume that hangs never returns. A second SIGINT ends the wait.

    Raises:
        Interrupted: a signal came first, whatever ``work`` made of it.
        BaseException: what ``work`` raised.
    """
    stopping = threading.Event()
    events: EventQueue[int | None] = EventQueue()  # a signal's number; None: the work is over
    with events.receiving(stop_signals(), int):
        outcome = begin(lambda: work(stopping), "work")
        outcome.add_done_callback(lambda _: events.put(None))
        signum = _wait(events, stopping, grace_s)
    if signum is None:
        return outcome.result()
    raise Interrupted(signum)


def _wait(events: EventQueue[int | None], stopping: threading.Event, grace_s: float) -> int | None:
    """The signal that came before the work was over, once the work may be left; None: it came to its end."""
    signum: int | None = None
    until = math.inf
    while (left_s := until - time.monotonic()) > 0:
        for event in events.take(None if signum is None else left_s):
            if event is None or event == signum == signal.SIGINT:
                return signum
            if signum is None:
                signum = event
                until = time.monotonic() + grace_s
                stopping.set()
    return signum
