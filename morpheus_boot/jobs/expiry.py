"""The sweep of old jobs (MORPHEUS_JOB_TTL_HOURS): by one worker, and never what somebody has just touched."""

import fcntl
import json
import os
from typing import Final

from morpheus_boot.jobs.folder import FOLDER, is_folder, names_in, open_below, open_or_make
from morpheus_boot.jobs.removal import (
    EXPIRED,
    TRASH,
    move_to_trash,
    removal_failed,
    remove_tree,
)
from morpheus_boot.layout import Layout, is_job_id

_LOCKS: Final = (".morpheus", "locks")
_LOCK: Final = "jobs.lock"
# A job's age is that of the youngest of these and of its own folder: four stats, no walk.
_TOUCHED: Final = ("input", "output", "job.json")
_BUSY: Final = frozenset({"queued", "running"})
_LONGEST_JOB_BYTES: Final = 16 * 2**20


def expire_jobs(layout: Layout, ttl_s: float) -> list[str]:
    """Removes the jobs that nobody touched for ``ttl_s``, by the volume's own clock; returns their ids.

    A job that is queued or running stays, and so does one that an upload reaches in the meantime.
    Nothing is done where another worker is at it.

    Raises:
        StorageFailed: the volume fails; what was moved away is settled by the next sweep.
    """
    try:
        lock = _open_lock(layout)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(lock)
            return _sweep(layout, os.fstat(lock).st_mtime - ttl_s)
        finally:
            os.close(lock)
    except BlockingIOError:
        return []
    except OSError as error:
        raise removal_failed(layout, "", error) from error


def _open_lock(layout: Layout) -> int:
    folder = open_or_make(layout, _LOCKS)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(_LOCK, flags, 0o644, dir_fd=folder)
    finally:
        os.close(folder)


def _sweep(layout: Layout, before: float) -> list[str]:
    try:
        jobs = open_below(layout, ("jobs",), FOLDER)
    except FileNotFoundError:
        return []
    try:
        trash = open_or_make(layout, TRASH)
        try:
            for name in names_in(trash):
                if name.endswith(EXPIRED):
                    _settle(jobs, trash, name, before)
            old = [name for name in names_in(jobs) if is_job_id(name)]
            return [
                name
                for name in old
                if _is_old(jobs, name, before) and _taken(jobs, trash, name, before)
            ]
        finally:
            os.close(trash)
    finally:
        os.close(jobs)


def _taken(jobs: int, trash: int, name: str, before: float) -> bool:
    try:
        moved = move_to_trash(jobs, trash, name, EXPIRED)
    except FileNotFoundError:
        return False
    return _settle(jobs, trash, moved, before)


def _settle(jobs: int, trash: int, moved: str, before: float) -> bool:
    """Removes a job that was moved away, or puts it back where somebody touched it before that."""
    if _is_old(trash, moved, before):
        return remove_tree(trash, moved)
    name = moved.removesuffix(EXPIRED).rpartition(".")[0]
    try:
        os.rename(moved, name, src_dir_fd=trash, dst_dir_fd=jobs)
    except OSError:
        # The job was made anew meanwhile: what is new there stays, the rest is put beside it.
        _put_back(trash, moved, jobs, name)
        remove_tree(trash, moved)
    return False


def _is_old(parent: int, name: str, before: float) -> bool:
    """Whether ``name`` is the folder of a job that nobody touched since, and that is not at work."""
    try:
        job = os.open(name, FOLDER, dir_fd=parent)
    except OSError:
        return False
    try:
        touched = [os.fstat(job).st_mtime]
        for below in _TOUCHED:
            try:
                touched.append(os.stat(below, dir_fd=job, follow_symlinks=False).st_mtime)
            except FileNotFoundError:
                continue
        return max(touched) < before and _status(job) not in _BUSY
    finally:
        os.close(job)


def _status(job: int) -> str:
    try:
        fd = os.open("job.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=job)
    except OSError:
        return ""
    try:
        document = json.loads(os.read(fd, _LONGEST_JOB_BYTES))
    except (OSError, ValueError):
        return ""
    finally:
        os.close(fd)
    return str(document.get("status", "")) if isinstance(document, dict) else ""


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
