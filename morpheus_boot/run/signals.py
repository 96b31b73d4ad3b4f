"""Signals as events: the handler only puts the number where the loop takes it."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signals_into(put: Callable[[int], None], signals: Iterable[int]) -> Iterator[None]:
    """Calls ``put`` with each of ``signals`` that comes, in the main thread, between two of its steps.

    ``put`` must be safe inside itself: SimpleQueue.put is (queue.SimpleQueue, "reentrant").
    """

    def handle(signum: int, _frame: FrameType | None) -> None:
        put(signum)

    before = {signum: signal.signal(signum, handle) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            # None: it was not set from Python, and so can't be set back from it.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
