"""One worker at a time makes what all need, where the volume lets them agree; the others find it there."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from morpheus_boot.cache.lock.lock import Claim, ModelLock
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.cache")


class Turns:
    """The turns of this worker on one volume, under a lock as a model has: flock, heartbeat, takeover."""

    def __init__(
        self, layout: Layout, worker: str, stopping: threading.Event, times: LockTimes
    ) -> None:
        self._layout = layout
        self._worker = worker
        self._stopping = stopping
        self._times = times

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Holds the lock of ``what``; whoever has waited for it looks again whether all is done.

        A volume that takes no lock (full, read-only) does without, since two at once publish the same; so does a
        boot that is told to stop. Raises WaitedTooLong where another worker holds it for too long.
        """
        with ExitStack() as held:
            claim = self._claim(what)
            if claim is not None:
                held.enter_context(claim)
            yield

    def _claim(self, what: str) -> Claim | None:
        lock = ModelLock(what, self._layout.turn_lock(what), self._worker, self._times)
        announced = False
        try:
            while (claim := lock.try_claim()) is None:
                if not announced:
                    holder = lock.holder
                    name = holder.worker if holder else "another worker"
                    _LOG.info("%s: waiting, %s prepares it", what, name)
                    announced = True
                if self._stopping.wait(self._times.poll_s):
                    return None
        except OSError as error:
            _LOG.debug("%s: no lock (%s)", what, error)
            return None
        return claim
