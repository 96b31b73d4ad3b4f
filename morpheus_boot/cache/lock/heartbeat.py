"""A heartbeat: a small file on the volume whose counter moves while its writer lives.

A watcher uses its own clock only, so hosts' clocks never matter.
"""

import errno
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.cache")
_LAST_BEAT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat: who writes it, its counter, how far the work is, and whether it was the last, in good order."""

    worker: str
    counter: int
    done_bytes: int = 0
    size_bytes: int | None = None
    ended: bool = False


def read_beat(path: Path) -> Beat | None:
    """The beat at ``path``; None where there is none. Raises OSError other than not found."""
    try:
        return from_document(Beat, path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


class Heart:
    """Writes a beat at once and then every ``interval_s``, in a thread of its own, until stopped.

    The thread may hang with the volume; nothing waits for it.
    """

    def __init__(
        self, path: Path, worker: str, interval_s: float, *, patient: bool = False
    ) -> None:
        """Raises OSError where even the first beat can't be written, unless it is ``patient``: a later one may be."""
        self._path = path
        self._worker = worker
        self._interval_s = interval_s
        self._counter = 0
        self._done_bytes = 0
        self._size_bytes: int | None = None
        self._stopped = threading.Event()
        try:
            self._beat()
        except OSError as error:
            if not patient:
                raise
            _LOG.warning(
                "volume: no sign of life can be left (%s); it is tried every %.0f s",
                error.strerror,
                interval_s,
            )
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def progress(self, done_bytes: int, size_bytes: int | None) -> None:
        """What the next beats say about the work."""
        self._done_bytes, self._size_bytes = done_bytes, size_bytes

    def end(self) -> None:
        """Writes a last beat that says so, and stops; waits for a second at most, since the volume may hang."""
        self._stopped.set()
        self._thread.join(timeout=_LAST_BEAT_S)

    def remove(self) -> None:
        """Ends the beats and removes the file, unless the volume hangs. Raises OSError."""
        self.end()
        if not self._thread.is_alive():
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._stopped.wait(self._interval_s)
            try:
                self._beat(ended=ended)
            except OSError as error:
                # A full volume must not end a download that has its room already.
                _LOG.debug("heartbeat %s: %s", self._path.name, error)

    def _beat(self, *, ended: bool = False) -> None:
        if self._counter and not self._path.parent.exists():
            # The volume was unmounted: its mount point is no place for ours.
            raise FileNotFoundError(errno.ENOENT, "its folder is gone", str(self._path.parent))
        self._counter += 1
        beat = Beat(self._worker, self._counter, self._done_bytes, self._size_bytes, ended)
        write_whole(self._path, to_document(beat), durable=False)


class Watch:
    """Looks at one heartbeat, and knows for how long it has stood still."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._silent_s = 0.0
        self._last: tuple[str, int] | None = None
        self.beat: Beat | None = None

    def look(self, passed_s: float) -> float:
        """Reads the heartbeat, ``passed_s`` after the last look; returns the seconds since its counter last moved.

        Raises OSError.
        """
        seen = read_beat(self._path)
        counter = (seen.worker, seen.counter) if seen else None
        self._silent_s = self._silent_s + passed_s if counter == self._last else 0.0
        self._last = counter
        self.beat = seen or self.beat
        return self._silent_s
