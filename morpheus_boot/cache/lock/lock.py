"""One lock a model: flock with a heartbeat, and one step beyond it for a holder that fell silent.

MooseFS frees a flock within milliseconds when its holder is killed, but keeps it for up to a day when the
holder's host is lost. A waiter that sees the heartbeat stand still therefore goes on under a second lock.
The lock saves bytes; it is never trusted with integrity.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock, Timeout

from morpheus_boot.cache.lock.heartbeat import Beat, Heart, Watch, read_beat
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.errors import WaitedTooLong
from morpheus_boot.volume.layout import Layout

# A waiter looks every poll_s, or every few of these. What it was busy or hung for beyond them is no silence of the
# holder's, and no waiting.
MOST_POLLS: Final = 4


class Claim:
    """The right to bring one model in, as a context manager.

    ``inherits``: the holders before are provably gone, so their part may be continued. Without it a silent
    holder may come back and flush old pages into its part, whose inode must never be the published one.
    """

    def __init__(self, lock: FileLock, heart: Heart, *, inherits: bool) -> None:
        self._lock = lock
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
            self._lock.release()


class ModelLock:
    """One worker's view of one model's lock; asks without waiting, and remembers for how long it has waited.

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
        self._step_s = (MOST_POLLS + 1) * times.poll_s
        self._main_watch = Watch(heartbeat_of(self._main), clock, longest_step_s=self._step_s)
        self._takeover_watch = Watch(
            heartbeat_of(self._takeover), clock, longest_step_s=self._step_s
        )
        self._looked_at: float | None = None
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
        main = _try_lock(self._main)
        if main is not None:
            return self._claim_freed(main)
        if self._main_watch.look() >= self._times.silence_s:
            takeover = _try_lock(self._takeover)
            if takeover is not None:
                return self._claim(takeover, self._takeover, inherits=False)
            if self._takeover_watch.look() >= self._times.silence_s:
                raise self._too_long("both fell silent")
        self._wait()
        return None

    def is_held(self, *, waits: bool = True) -> bool:
        """Whether a holder is at work, as a look that costs little shows; False: try_claim() is worth a try.

        Nothing is claimed, so that whoever has its hands free may. ``waits``: since the last look this worker has
        had nothing else to do, and its deadline comes nearer. Raises as try_claim() does.
        """
        held = any(
            _is_held(path) and watch.look() < self._times.silence_s
            for path, watch in (
                (self._main, self._main_watch),
                (self._takeover, self._takeover_watch),
            )
        )
        if held and waits:
            self._wait()
        self._looked_at = self._clock()
        return held

    def _claim_freed(self, main: FileLock) -> Claim | None:
        # Freed, so its holder is gone. But another may have taken over from it and still be at work.
        takeover = _try_lock(self._takeover)
        if takeover is not None:
            takeover.release()
            return self._claim(main, self._main, inherits=True)
        if self._takeover_watch.look() >= self._times.silence_s:
            return self._claim(main, self._main, inherits=False)
        main.release()
        self._wait()
        return None

    def _claim(self, lock: FileLock, path: Path, *, inherits: bool) -> Claim:
        try:
            return Claim(
                lock,
                Heart(heartbeat_of(path), self._worker, self._times.beat_s),
                inherits=inherits,
            )
        except OSError:
            lock.release()
            raise

    def _wait(self) -> None:
        """Counts the time since the last look as waiting. Raises WaitedTooLong once it is too much."""
        now = self._clock()
        if self._looked_at is not None:
            self._waited_s += min(now - self._looked_at, self._step_s)
        self._looked_at = now
        if self._waited_s >= self._times.deadline_s:
            raise self._too_long(f"still locked after {self._times.deadline_s:.0f} s")

    def _too_long(self, cause: str) -> WaitedTooLong:
        beats = (self._main_watch.beat, self._takeover_watch.beat)
        names = " and ".join(dict.fromkeys(b.worker for b in beats if b)) or "an unknown worker"
        return WaitedTooLong(
            self._subject,
            f"waited for {names}, which {'hold' if ' and ' in names else 'holds'} its lock: {cause}",
            "try again, or stop that worker",
        )


def takeover_of(lock: Path) -> Path:
    """The lock, beside ``lock``, of whoever goes on in place of a holder that fell silent."""
    return lock.with_suffix(".takeover.lock")


def heartbeat_of(lock: Path) -> Path:
    """The heartbeat beside a lock."""
    return lock.with_suffix(".heartbeat")


def _try_lock(path: Path) -> FileLock | None:
    # Unlinking a flock's file while others wait on it would let two hold it; a soft lock never expires.
    lock = FileLock(
        path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True, mode=0o666
    )
    with suppress(Timeout):
        try:
            lock.acquire(timeout=0)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        return lock
    return None


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
            lock = _try_lock(path)
            if lock is None:
                yield False
                return
            held.callback(lock.release)
        yield True


def who_holds(layout: Layout, model_path: str) -> Beat | None:
    """Who is at a model now, as its heartbeat says; None where it has none, or its lock is free.

    Only looks: nothing is made, and two who look at once don't see each other. Raises OSError.
    """
    main = layout.lock(model_path)
    for path in (takeover_of(main), main):
        # A worker at work beats; who holds the lock without a beat only removes what nobody needs.
        beat = read_beat(heartbeat_of(path))
        if beat is not None and _is_held(path):
            return beat
    return None


def _is_held(path: Path) -> bool:
    # Not FileLock: it makes the folder and the file, and takes five calls on the volume for this one's.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared: a holder's is exclusive, and two who look must not keep each other out.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True  # EACCES is what some file systems say for EAGAIN
    finally:
        os.close(fd)
    return False
