"""The workers seen on the volume: one heartbeat file each."""

import errno
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.heartbeat import Heart, read_beat
from morpheus_boot.errors import is_full
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import temporary_beside

BEAT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """One worker: seconds since its last beat by the volume's own clock, and whether it ended in good order."""

    worker: str
    age_s: float
    ended: bool


def beat_for(layout: Layout, worker: str) -> Heart:
    """Starts this worker's heartbeat, which a volume that is full or read-only only delays.

    Whoever shows no sign of life is taken for gone: its jobs are settled as lost by the other workers.
    """
    return Heart(_path(layout, worker), worker, BEAT_S, patient=True)


def seen_workers(layout: Layout) -> tuple[SeenWorker, ...]:
    """All workers with a heartbeat on the volume. Raises OSError."""
    names = [path.stem for path in sorted(layout.workers.glob("*.json"))]
    now = volume_time(layout) if names else 0.0
    return tuple(seen for name in names if (seen := seen_worker(layout, name, now)) is not None)


def seen_worker(layout: Layout, worker: str, now: float | None = None) -> SeenWorker | None:
    """One worker; None where it has left no heartbeat. Raises OSError.

    ``now``: the time by the volume's clock, where that was asked already: it costs five calls on the volume.
    """
    path = _path(layout, worker)
    try:
        beat_at = path.stat().st_mtime
    except FileNotFoundError:
        return None
    beat = read_beat(path)
    age_s = max(0.0, (volume_time(layout) if now is None else now) - beat_at)
    return SeenWorker(worker, age_s, ended=beat is not None and beat.ended)


def volume_time(layout: Layout) -> float:
    """The time by the volume's own clock: the mtime of a file just touched there.

    Where nothing can be written, or nothing of ours is there yet, by this host's. Raises OSError where the volume
    fails otherwise.
    """
    path = temporary_beside(layout.ours / "clock")
    try:
        path.touch()
        return path.stat().st_mtime
    except OSError as error:
        if not is_full(error) and error.errno not in (errno.EROFS, errno.EACCES, errno.ENOENT):
            raise
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _path(layout: Layout, worker: str) -> Path:
    return layout.workers / f"{worker}.json"
