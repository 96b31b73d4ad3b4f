"""The sweep of old jobs (MORPHEUS_JOB_TTL_HOURS, gc): by one worker, and never what somebody has just touched."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from morpheus_boot.cache.lock.workers import seen_workers, volume_time
from morpheus_boot.errors import is_full, storage_error
from morpheus_boot.jobs.folder import FOLDER, is_folder, names_in, open_below, open_or_make
from morpheus_boot.jobs.removal import (
    EXPIRED,
    move_to_trash,
    removal_failed,
    remove_tree,
)
from morpheus_boot.jobs.store import record_in
from morpheus_boot.volume.layout import Layout, is_job_id

# A job's age is that of the youngest of these and of its own folder: four stats, no walk.
_TOUCHED: Final = ("input", "output", "job.json")
# A worker without a beat for so long has lost its jobs for certain; who asks for one is told so far sooner.
_LOST_S: Final = 3600.0
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})


def old_jobs(layout: Layout, ttl_s: float) -> list[str]:
    """The ids of the jobs that expire_jobs() would remove now. Raises StorageFailed."""
    try:
        return _Sweep(layout, ttl_s).old()
    except OSError as error:
        raise storage_error("jobs", layout.jobs, error) from error


def expire_jobs(layout: Layout, ttl_s: float) -> list[str]:
    """Removes the jobs that nobody touched for ``ttl_s``, by the volume's own clock; returns their ids.

    A job that is queued or running stays, unless its worker is gone, and so does one that an upload
    reaches in the meantime.
    Nothing is done where another worker is at it.

    Raises:
        StorageFailed: the volume fails; what was moved away is settled by the next sweep.
    """
    try:
        with _alone(layout) as alone:
            return _Sweep(layout, ttl_s).run() if alone else []
    except OSError as error:
        raise removal_failed(layout, "", error) from error


@contextmanager
def _alone(layout: Layout) -> Iterator[bool]:
    """Holds the sweep's lock; yields False where another worker does. Raises OSError."""
    with ExitStack() as held:
        try:
            lock = _open_lock(layout)
            held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            # Where there is no room even for the lock, room is what this is about; two at once lose nothing.
            if not is_full(error):
                raise
        yield True


def _open_lock(layout: Layout) -> int:
    folder = open_or_make(layout, layout.way(layout.jobs_lock.parent))
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(layout.jobs_lock.name, flags, 0o644, dir_fd=folder)
    finally:
        os.close(folder)


class _Sweep:
    """One sweep, of what nobody touched for ``ttl_s``. Its methods raise OSError."""

    def __init__(self, layout: Layout, ttl_s: float) -> None:
        self._layout = layout
        self._before = volume_time(layout) - ttl_s
        self._living = frozenset(
            seen.worker for seen in seen_workers(layout) if not seen.ended and seen.age_s < _LOST_S
        )

    def old(self) -> list[str]:
        """The ids of the jobs that are old."""
        with ExitStack() as opened:
            jobs = self._open_jobs(opened)
            return [] if jobs is None else [n for n in _ids_in(jobs) if self._is_old(jobs, n)]

    def run(self) -> list[str]:
        """The ids of the jobs that it removed."""
        with ExitStack() as opened:
            jobs = self._open_jobs(opened)
            if jobs is None:
                return []
            trash = self._open_trash(opened)
            if trash is not None:
                for name in names_in(trash):
                    if name.endswith(EXPIRED):
                        self._settle(jobs, trash, name)
            return [
                name
                for name in _ids_in(jobs)
                if self._is_old(jobs, name) and self._taken(jobs, trash, name)
            ]

    def _open_jobs(self, opened: ExitStack) -> int | None:
        try:
            jobs = open_below(self._layout, self._layout.way(self._layout.jobs), FOLDER)
        except FileNotFoundError:
            return None
        opened.callback(os.close, jobs)
        return jobs

    def _open_trash(self, opened: ExitStack) -> int | None:
        """None where there is no room even for that folder."""
        try:
            trash = open_or_make(self._layout, self._layout.way(self._layout.trash))
        except OSError as error:
            if not is_full(error):
                raise
            return None
        opened.callback(os.close, trash)
        return trash

    def _taken(self, jobs: int, trash: int | None, name: str) -> bool:
        if trash is None:
            return remove_tree(jobs, name)
        try:
            moved = move_to_trash(jobs, trash, name, EXPIRED)
        except FileNotFoundError:
            return False
        except OSError as error:
            # Some quotas refuse even a rename, and room is what this is about.
            if is_full(error):
                return remove_tree(jobs, name)
            raise
        return self._settle(jobs, trash, moved)

    def _settle(self, jobs: int, trash: int, moved: str) -> bool:
        """Removes a job that was moved away, or puts it back where somebody touched it before that."""
        if self._is_old(trash, moved):
            return remove_tree(trash, moved)
        name = moved.removesuffix(EXPIRED).rpartition(".")[0]
        try:
            os.rename(moved, name, src_dir_fd=trash, dst_dir_fd=jobs)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise  # it is still there, and the next sweep settles it
            # The job was made anew meanwhile: what is new there stays, the rest is put beside it.
            _put_back(trash, moved, jobs, name)
            remove_tree(trash, moved)
        return False

    def _is_old(self, parent: int, name: str) -> bool:
        """Whether ``name`` is the folder of a job that nobody touched since, and that is not at work."""
        try:
            job = os.open(name, FOLDER, dir_fd=parent)
        except OSError:
            return False
        try:
            # Looked at last, too: nothing slow may lie between that and the removal.
            return (
                _touched(job) < self._before
                and not self._is_at_work(job)
                and _touched(job) < self._before
            )
        finally:
            os.close(job)

    def _is_at_work(self, job: int) -> bool:
        record = record_in(job)
        return record is not None and not record.status.is_over and record.worker in self._living


def _ids_in(jobs: int) -> list[str]:
    return sorted(name for name in names_in(jobs) if is_job_id(name))


def _touched(job: int) -> float:
    """When somebody last touched the job in the open folder ``job``. Raises OSError."""
    touched = [os.fstat(job).st_mtime]
    for below in _TOUCHED:
        try:
            touched.append(os.stat(below, dir_fd=job, follow_symlinks=False).st_mtime)
        except FileNotFoundError:
            continue
    return max(touched)


def _put_back(source_parent: int, source: str, target_parent: int, target: str) -> None:
    """Moves what ``target`` has not got, folder by folder."""
    from_fd = os.open(source, FOLDER, dir_fd=source_parent)
    try:
        to_fd = os.open(target, FOLDER, dir_fd=target_parent)
    except OSError:
        os.close(from_fd)
        return
    try:
        there = set(names_in(to_fd))
        for name in names_in(from_fd):
            if name not in there:
                os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            elif is_folder(from_fd, name):
                _put_back(from_fd, name, to_fd, name)
    finally:
        os.close(to_fd)
        os.close(from_fd)
