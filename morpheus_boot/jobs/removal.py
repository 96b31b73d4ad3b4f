"""Removing jobs: nothing but ``jobs/<job>`` and its record, at once for everyone who looks, and repeatable.

A job's folder is first moved to ``.morpheus/trash/``: it vanishes as a whole, and an upload at the same moment
makes it anew. Old jobs (MORPHEUS_JOB_TTL_HOURS, gc) are removed by one worker, and never those that are at work.
"""

import errno
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from morpheus_boot.cache.lock.workers import seen_workers, volume_time
from morpheus_boot.errors import MorpheusError, is_full, storage_errors
from morpheus_boot.jobs.files import FOLDER, is_folder, names_in, open_or_make, opened_folder
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.volume.flock import open_locked
from morpheus_boot.volume.layout import Layout, is_job_id

_LOG: Final = logging.getLogger("morpheus.fileserver")

# Uploads that land while a folder is emptied make it full again; each round removes them too.
_ROUNDS: Final = 10
# A worker without a beat for so long has lost its jobs for certain; who asks for one is told so far sooner.
_LOST_S: Final = 3600.0


def remove_job(layout: Layout, job: JobId) -> bool:
    """Removes ``job`` with all its files; False where there was none. A link in its place goes, not its target.

    Raises:
        StorageFailed: the volume fails; what is left goes with the next call or start.
    """
    had_record = JobStore(layout).remove(job)
    with (
        storage_errors(job.text, layout.job(job.text)),
        suppress(FileNotFoundError),
        opened_folder(layout, layout.jobs) as jobs,
    ):
        return _remove(layout, jobs, job.text) or had_record
    return had_record


def empty_trash(layout: Layout) -> int:
    """Removes what earlier removals left there; returns how many jobs. Raises StorageFailed."""
    with (
        storage_errors("trash", layout.trash),
        suppress(FileNotFoundError),
        opened_folder(layout, layout.trash) as trash,
    ):
        return sum(_remove_tree(trash, name) for name in names_in(trash))
    return 0


def old_jobs(layout: Layout, ttl_s: float) -> list[str]:
    """The ids of the jobs that expire_jobs() would remove now. Raises StorageFailed."""
    with storage_errors("jobs", layout.jobs), _sweep(layout, ttl_s) as sweep:
        return [name for name in sweep.ids() if sweep.is_old(name)]


def expire_jobs(layout: Layout, ttl_s: float) -> list[str]:
    """Removes the jobs that nobody touched for ``ttl_s``, by the volume's own clock; returns their ids.

    A job that is queued or running stays, unless its worker is gone, and so does one that an upload reaches in the
    meantime. One that can't be removed holds up no other, and is in the log. Nothing is done where another worker is
    at it. Raises StorageFailed.
    """
    with (
        storage_errors("jobs", layout.jobs),
        _alone(layout) as alone,
        _sweep(layout, ttl_s) as sweep,
    ):
        return [name for name in sweep.ids() if sweep.remove(name)] if alone else []


@contextmanager
def _alone(layout: Layout) -> Iterator[bool]:
    """Holds the sweep's lock; False where another worker does. Raises OSError."""
    with ExitStack() as held:
        try:
            lock = open_locked(layout.jobs_lock)
        except OSError as error:
            # Where there is no room even for the lock, room is what this is about; two at once lose nothing.
            if not is_full(error):
                raise
            yield True
            return
        if lock is not None:
            held.callback(os.close, lock)
        yield lock is not None


@contextmanager
def _sweep(layout: Layout, ttl_s: float) -> "Iterator[_Sweep]":
    before = volume_time(layout) - ttl_s
    living = frozenset(
        seen.worker for seen in seen_workers(layout) if not seen.ended and seen.age_s < _LOST_S
    )
    with ExitStack() as opened:
        try:
            jobs = opened.enter_context(opened_folder(layout, layout.jobs))
        except FileNotFoundError:
            jobs = None
        yield _Sweep(layout, jobs, before, living)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """A look at all jobs for those that nobody touched since ``before``; ``jobs`` is their open folder."""

    layout: Layout
    jobs: int | None
    before: float
    living: frozenset[str]

    def ids(self) -> list[str]:
        """The jobs that have a folder or a record. Raises OSError."""
        found = {path.stem for path in self.layout.job_records.glob("*.json")}
        if self.jobs is not None:
            found.update(names_in(self.jobs))
        return sorted(name for name in found if is_job_id(name))

    def is_old(self, name: str) -> bool:
        """Whether nobody touched the job or is at work on it; one that can't be looked at is not old."""
        try:
            return (
                self._is_untouched(self.jobs, name, name)
                and not self._is_at_work(name)
                # Looked at last, too: nothing slow may lie between that and the removal.
                and self._is_untouched(self.jobs, name, name)
            )
        except (OSError, MorpheusError) as error:
            _LOG.warning("job %s can't be looked at: %s", name, error)
            return False

    def remove(self, name: str) -> bool:
        """Whether the job is old and was removed."""
        if not self.is_old(name):
            return False
        try:
            if self.jobs is not None and _exists(self.jobs, name):
                moved_is_old = partial(self._is_untouched, name=name)
                if not _remove(self.layout, self.jobs, name, moved_is_old):
                    return False
            JobStore(self.layout).remove(JobId(name))
        except (OSError, MorpheusError) as error:
            _LOG.warning("job %s can't be removed: %s", name, error)
            return False
        return True

    def _is_untouched(self, parent: int | None, folder: str, name: str) -> bool:
        """Whether none of four was touched: the job's ``folder`` in ``parent``, its input, its output, its record."""
        touched = []
        if parent is not None:
            for below in (folder, f"{folder}/input", f"{folder}/output"):
                with suppress(FileNotFoundError):
                    seen = os.stat(below, dir_fd=parent, follow_symlinks=False)
                    if below == folder and not stat.S_ISDIR(seen.st_mode):
                        return False  # no job
                    touched.append(seen.st_mtime)
        with suppress(FileNotFoundError):
            touched.append(self.layout.job_record(name).lstat().st_mtime)
        return bool(touched) and max(touched) < self.before

    def _is_at_work(self, name: str) -> bool:
        record = JobStore(self.layout).read(JobId(name))
        return record is not None and not record.status.is_over and record.worker in self.living


def _remove(
    layout: Layout,
    jobs: int,
    name: str,
    is_wanted: Callable[[int, str], bool] = lambda _trash, _moved: True,
) -> bool:
    """Moves the job's folder away and removes it; puts it back where it then is not ``is_wanted`` any more.

    Raises OSError.
    """
    moved = f"{name}.{secrets.token_hex(6)}"
    with ExitStack() as opened:
        try:
            trash = open_or_make(layout, layout.way(layout.trash))
            opened.callback(os.close, trash)
            os.rename(name, moved, src_dir_fd=jobs, dst_dir_fd=trash)
        except FileNotFoundError:
            return False
        except OSError:
            # MooseFS refuses even a rename where the quota is used up, and room is what this may be about.
            return _remove_tree(jobs, name)
        if is_wanted(trash, moved):
            return _remove_tree(trash, moved)
        try:
            os.rename(moved, name, src_dir_fd=trash, dst_dir_fd=jobs)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            # The job was made anew meanwhile: what is new stays.
            _remove_tree(trash, moved)
        return False


def _remove_tree(parent: int, name: str) -> bool:
    """Removes ``name`` from the open folder ``parent``, following no link; False where it was not there.

    Raises OSError.
    """
    failure = OSError(errno.ENOTEMPTY, "it fills as it is emptied")
    for again in range(_ROUNDS):
        if not _exists(parent, name):
            return again > 0
        try:
            if is_folder(parent, name):
                # Safe against links put in its way since Python 3.3 (rmtree.avoids_symlink_attacks).
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        except RecursionError:
            _flatten(parent, name)
        except OSError as error:
            failure = error
            if error.errno == errno.EMFILE:
                _flatten(parent, name)
        else:
            return True
    raise failure


def _flatten(parent: int, name: str) -> None:
    """Removes a folder too deep for rmtree(), which has each level open: what it holds is moved up first.

    Raises OSError.
    """
    pending = [name]
    while pending:
        at = pending.pop()
        fd = os.open(at, FOLDER, dir_fd=parent)
        try:
            for held in names_in(fd):
                if is_folder(fd, held):
                    pending.append(f"{name}.{secrets.token_hex(6)}")
                    os.rename(held, pending[-1], src_dir_fd=fd, dst_dir_fd=parent)
                else:
                    os.unlink(held, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(at, dir_fd=parent)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
