"""A command's one long piece of work, which SIGTERM and SIGINT end in order."""

import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from morpheus_boot.run.signals import STOP_SIGNALS, signals_into

_T = TypeVar("_T")


class Interrupted(Exception):
    """SIGTERM or SIGINT ended the work before its time; ``128 + signum`` is the exit code that says so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run_to_end(work: Callable[[threading.Event], _T], *, grace_s: float = 4.0) -> _T:
    """Runs ``work`` in a thread of its own and returns what it returns; called from the main thread.

    On a signal the event given to ``work`` is set; it then has ``grace_s`` to save what it holds. It is not
    waited for any longer, since a call on a volume that hangs never returns. A second SIGINT ends the wait.

    Raises:
        Interrupted: a signal came first, whatever ``work`` made of it.
        BaseException: what ``work`` raised.
    """
    stopping = threading.Event()
    events: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    outcome: Future[_T] = Future()

    def carry_out() -> None:
        try:
            outcome.set_result(work(stopping))
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            outcome.set_exception(error)
        events.put(None)

    with signals_into(events.put, STOP_SIGNALS):
        threading.Thread(target=carry_out, name="work", daemon=True).start()
        signum = events.get()
        if signum is None:
            return outcome.result()
        stopping.set()
        _wait_for_end(events, signum, time.monotonic() + grace_s)
        raise Interrupted(signum)


def _wait_for_end(events: "queue.SimpleQueue[int | None]", signum: int, until: float) -> None:
    while (left_s := until - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left_s)
        except queue.Empty:
            return
        if event is None or event == signum == signal.SIGINT:
            return
