"""One lock a model: flock with a heartbeat, and one step beyond it for a holder that fell silent.

MooseFS frees a flock within milliseconds when its holder is killed, but keeps it for up to a day when the
holder's host is lost. A waiter that sees the heartbeat stand still therefore goes on under a second lock.
The lock saves bytes; it is never trusted with integrity.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from morpheus_boot.cache.lock.heartbeat import Beat, Heart, Watch, read_beat
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.volume.flock import is_locked, open_locked
from morpheus_boot.volume.layout import Layout
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
# A waiter tries every poll_s, or every few of these.
MOST_POLLS: Final = 4


class Claim:
    """The right to bring one model in, as a context manager.

    ``inherits``: the holders before are provably gone, so their part may be continued. Without it a silent
    holder may come back and flush old pages into its part, whose inode must never be the published one.
    """

    def __init__(self, lock_fd: int, heart: Heart, *, inherits: bool) -> None:
        self._lock_fd = lock_fd
        self._heart = heart
        self.inherits = inherits

    def progress(self, done_bytes: int, size_bytes: int | None) -> None:
        """Tells those who wait how far the work is."""
        self._heart.progress(done_bytes, size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._heart.remove()
        finally:
            os.close(self._lock_fd)


class ModelLock:
    """One worker's view of one model's lock; it remembers for how long it has waited.

    ``subject``: what the lock is of, as an error names it.
    """

    def __init__(
        self,
        subject: str,
        lock: Path,
        worker: str,
        times: LockTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subject = subject
        self._worker = worker
        self._times = times
        self._clock = clock
        self._main = lock
        self._takeover = takeover_of(lock)
        self._main_watch = Watch(heartbeat_of(self._main))
        self._takeover_watch = Watch(heartbeat_of(self._takeover))
        self._tried_at: float | None = None
        self._waited_s = 0.0

    @property
    def holder(self) -> Beat | None:
        """Who holds the lock, as last seen; None where its heartbeat was not there."""
        return self._takeover_watch.beat or self._main_watch.beat

    def try_claim(self) -> Claim | None:
        """The claim, or None while another worker holds it.

        Raises:
            WaitedTooLong: both holders fell silent, or the deadline has passed; the line names who holds it.
            OSError: the volume fails.
        """
        passed_s, silence_s = self._passed_s(), self._times.silence_s
        main_fd = open_locked(self._main)
        if main_fd is not None:
            # Freed, so its holder is gone. But another may have taken over from it and still be at work.
            if not is_locked(self._takeover):
                return self._claim(main_fd, self._main, inherits=True)
            if self._takeover_watch.look(passed_s) >= silence_s:
                return self._claim(main_fd, self._main, inherits=False)
            os.close(main_fd)
        elif self._main_watch.look(passed_s) >= silence_s:
            takeover_fd = open_locked(self._takeover)
            if takeover_fd is not None:
                return self._claim(takeover_fd, self._takeover, inherits=False)
            if self._takeover_watch.look(passed_s) >= silence_s:
                raise self._too_long("both fell silent")
        self._waited_s += passed_s
        if self._waited_s >= self._times.deadline_s:
            raise self._too_long(f"still locked after {self._times.deadline_s:.0f} s")
        return None

    def claim(self, stopping: threading.Event, on_wait: Callable[[], None]) -> Claim:
        """The claim, waited for; ``on_wait`` is called while another worker has it. Raises as try_claim(); Stopped."""
        while (claim := self.try_claim()) is None:
            on_wait()
            if stopping.wait(self._times.poll_s):
                raise Stopped
        return claim

    def _claim(self, fd: int, path: Path, *, inherits: bool) -> Claim:
        try:
            heart = Heart(heartbeat_of(path), self._worker, self._times.beat_s)
        except OSError:
            os.close(fd)
            raise
        return Claim(fd, heart, inherits=inherits)

    def _passed_s(self) -> float:
        """Seconds since the last try, as far as they were no more than a few polls.

        What this worker was busy or hung for beyond them is no silence of the holder's, and no waiting.
        """
        now, last = self._clock(), self._tried_at
        self._tried_at = now
        return 0.0 if last is None else min(now - last, (MOST_POLLS + 1) * self._times.poll_s)

    def _too_long(self, cause: str) -> WaitedTooLong:
        beats = (self._main_watch.beat, self._takeover_watch.beat)
        names = " and ".join(dict.fromkeys(b.worker for b in beats if b)) or "an unknown worker"
        return WaitedTooLong(
            self._subject,
            f"waited for {names}, which {'hold' if ' and ' in names else 'holds'} its lock: {cause}",
            "try again, or stop that worker",
        )


@contextmanager
def archive_lock(
    what: str, *, layout: Layout, worker: str, stopping: threading.Event, times: LockTimes
) -> Iterator[None]:
    """Holds the lock of ``what`` all workers need: one makes it, and the others look again whether it is there.

    A volume that takes no lock (full, read-only) does without, since two at once publish the same; so does a boot
    that is told to stop. Raises WaitedTooLong where another worker holds it for too long.
    """
    lock = ModelLock(what, layout.archive_lock(what), worker, times)
    announced = False

    def announce() -> None:
        nonlocal announced
        if not announced:
            name = lock.holder.worker if lock.holder else "another worker"
            _LOG.info("%s: waiting, %s prepares it", what, name)
        announced = True

    with ExitStack() as held:
        try:
            held.enter_context(lock.claim(stopping, announce))
        except Stopped:
            pass
        except OSError as error:
            _LOG.debug("%s: no lock (%s)", what, error)
        yield


def takeover_of(lock: Path) -> Path:
    """The lock, beside ``lock``, of whoever goes on in place of a holder that fell silent."""
    return lock.with_suffix(".takeover.lock")


def heartbeat_of(lock: Path) -> Path:
    """The heartbeat beside a lock."""
    return lock.with_suffix(".heartbeat")


@contextmanager
def held_if_free(layout: Layout, key: str) -> Iterator[bool]:
    """Holds a model's lock where no worker does, neither it nor in its place; yields whether it does so.

    A lock whose file is not there is held by nobody, and none is made: it would be garbage in its turn, and a full
    volume would refuse it. Raises OSError.
    """
    main = layout.locks / f"{key}.lock"
    with ExitStack() as held:
        for path in (takeover_of(main), main):
            if not path.exists():
                continue
            fd = open_locked(path)
            if fd is None:
                yield False
                return
            held.callback(os.close, fd)
        yield True


def who_holds(layout: Layout, model_path: str) -> Beat | None:
    """Who is at a model now, as its heartbeat says; None where it has none, or its lock is free.

    Only looks: nothing is made, and two who look at once don't see each other. Raises OSError.
    """
    main = layout.lock(model_path)
    for path in (takeover_of(main), main):
        # A worker at work beats; who holds the lock without a beat only removes what nobody needs.
        beat = read_beat(heartbeat_of(path))
        if beat is not None and is_locked(path):
            return beat
    return None
