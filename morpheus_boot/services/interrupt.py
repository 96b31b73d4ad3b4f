"""A command's one long piece of work, which a signal ends in order."""

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from morpheus_boot.services.mailbox import Mailbox
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import stop_signals

_T = TypeVar("_T")


class Interrupted(Exception):
    """A signal ended the work before its time; ``128 + signum`` is the exit code that says so."""

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
    events: Mailbox[int | None] = Mailbox()  # a signal's number; None: the work is over
    with events.receiving(stop_signals(), int):
        outcome = begin(lambda: work(stopping), "work")
        outcome.add_done_callback(lambda _: events.put(None))
        signum = _wait(events, stopping, grace_s)
    if signum is None:
        return outcome.result()
    raise Interrupted(signum)


def _wait(events: Mailbox[int | None], stopping: threading.Event, grace_s: float) -> int | None:
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
