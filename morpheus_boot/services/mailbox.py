"""One queue for all that happens, signals included, on which the main thread can sleep."""

import os
import select
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """Anyone puts, from any thread or signal handler; one thread takes.

    It wakes by a pipe, not by a lock: the kernel may hand a signal to any thread, and a main thread that waits
    for a lock then sleeps on (the reason for signal.set_wakeup_fd).
    """

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Not at exit: a thread that is still there may put something.
        closing = weakref.finalize(self, _close, self._read_fd, self._write_fd)
        closing.atexit = False

    def put(self, item: _Item) -> None:
        """Adds ``item`` and wakes the taker."""
        self._items.append(item)
        with suppress(BlockingIOError):  # a full pipe wakes it, too
            os.write(self._write_fd, b"\0")

    def take(self, timeout_s: float | None = None) -> list[_Item]:
        """All items in their order; waits for the first, at most ``timeout_s``, and may return without any."""
        wakeup = select.poll()
        wakeup.register(self._read_fd, select.POLLIN)
        wakeup.poll(None if timeout_s is None else timeout_s * 1000)
        # Emptied before the items are taken: what comes in between wakes once too often, not once too little.
        with suppress(BlockingIOError):
            os.read(self._read_fd, 65536)
        return [self._items.popleft() for _ in range(len(self._items))]

    @contextmanager
    def receiving(self, signals: Iterable[int], as_item: Callable[[int], _Item]) -> Iterator[None]:
        """Puts each of ``signals`` that comes meanwhile. For the main thread, which is to be the taker."""

        def handle(signum: int, _frame: FrameType | None) -> None:
            self.put(as_item(signum))

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
