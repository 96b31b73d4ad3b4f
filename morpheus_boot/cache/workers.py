"""The workers seen on the volume: one heartbeat file each."""

import errno
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.heartbeat import Heart
from morpheus_boot.layout import Layout

BEAT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """One worker, and the seconds since its last beat by the volume's own clock."""

    worker: str
    age_s: float


def beat_for(layout: Layout, worker: str) -> Heart:
    """Starts this worker's heartbeat. Raises OSError where even the first beat can't be written."""
    return Heart(_path(layout, worker), worker, BEAT_S)


def seen_workers(layout: Layout) -> Iterator[SeenWorker]:
    """All workers with a heartbeat on the volume. Raises OSError."""
    paths = sorted(layout.workers.glob("*.json"))
    now = volume_time(layout) if paths else 0.0
    for path in paths:
        age_s = _age_s(path, now)
        if age_s is not None:
            yield SeenWorker(path.stem, age_s)


def worker_age_s(layout: Layout, worker: str) -> float | None:
    """Seconds since a worker's last beat by the volume's own clock; None: it has none. Raises OSError."""
    path = _path(layout, worker)
    return _age_s(path, volume_time(layout)) if path.exists() else None


def volume_time(layout: Layout) -> float:
    """The time by the volume's own clock: the mtime of a file just touched there.

    Where nothing can be written, by this host's. Raises OSError where the volume fails otherwise.
    """
    path = layout.ours / f".clock.{secrets.token_hex(4)}"
    try:
        layout.ours.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path.stat().st_mtime
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC):
            raise
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _path(layout: Layout, worker: str) -> Path:
    return layout.workers / f"{worker}.json"


def _age_s(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.stat().st_mtime)
    except FileNotFoundError:
        return None
