"""Where jobs lie on the volume: each one's job.json, and each worker's open jobs and requests to cancel.

``.morpheus/jobs/<worker>/`` has a marker ``<job>.<run>.open`` for each job of that worker that is not
over, so that a restarted worker finds its own without walking all of jobs/, and ``<job>.<run>.cancel``
where any worker asked to cancel it: one listing a second shows both.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from morpheus_boot.errors import Exit, MorpheusError, storage_error
from morpheus_boot.jobs.folder import FOLDER, leads_to, names_in, open_below, open_or_make
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord
from morpheus_boot.volume.layout import Layout, is_job_id

_FILE: Final = "job.json"
_OPEN: Final = "open"
_CANCEL: Final = "cancel"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES: Final = 5
_TORN: Final = "torn"


class JobTaken(MorpheusError):
    """A job of that id is queued or running."""

    exit_code = Exit.STORAGE

    def __init__(self, job: JobId) -> None:
        super().__init__(str(job), "a job of this id is queued or running", "cancel it, or wait")


class JobGone(MorpheusError):
    """The job was cleaned up, or another worker has ended it or begun it anew."""

    exit_code = Exit.STORAGE

    def __init__(self, job: JobId) -> None:
        super().__init__(str(job), "it is not this worker's job any more", "see its status")


@dataclass(frozen=True, slots=True)
class Mark:
    """A marker in a worker's folder."""

    job: JobId
    run: str


class JobStore:
    """All jobs of the volume. Its methods block, may be called from any thread, and raise StorageFailed, VolumeFull."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def read(self, job: JobId) -> JobRecord | None:
        """The job's record; None where it has none, or one that can't be read."""
        try:
            fd = open_below(
                self._layout, self._layout.way(self._layout.job(job.text) / _FILE), _READ
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed(job, error) from error
        return _record(fd)

    def create(self, job: JobId, record: JobRecord) -> JobRecord:
        """Writes the job's record exclusively, with the volume's time in it; one that is over makes room for it.

        Raises JobTaken where the job is queued or running, here or anywhere.
        """
        try:
            posted_ns = self._mark(record.worker, job, record.run, _OPEN)
            record = record.model_copy(update={"posted_ns": posted_ns})
            if not self._created(job, record):
                self.forget(job, record)
                raise JobTaken(job)
        except OSError as error:
            raise self._failed(job, error) from error
        return record

    def update(self, job: JobId, record: JobRecord) -> None:
        """Replaces the job's record by a later one of the same run, whole; durable where the run is over.

        Raises JobGone where the record on the volume is another run's, or over, or not there.
        """
        try:
            folder = open_below(self._layout, self._layout.way(self._layout.job(job.text)), FOLDER)
        except FileNotFoundError:
            raise JobGone(job) from None
        except OSError as error:
            raise self._failed(job, error) from error
        try:
            before = record_in(folder)
            if before is None or before.run != record.run or before.status.is_over:
                raise JobGone(job)
            part = _write_part(folder, record)
            os.rename(part, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
            if record.status.is_over:
                os.fsync(folder)
        except OSError as error:
            raise self._failed(job, error) from error
        finally:
            os.close(folder)

    def forget(self, job: JobId, record: JobRecord) -> None:
        """Removes the run's marks: it is over."""
        try:
            folder = open_below(self._layout, self._marks_of(record.worker), FOLDER)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed(job, error) from error
        try:
            for kind in (_OPEN, _CANCEL):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{job}.{record.run}.{kind}", dir_fd=folder)
        except OSError as error:
            raise self._failed(job, error) from error
        finally:
            os.close(folder)

    def ask_to_cancel(self, job: JobId, record: JobRecord) -> None:
        """Leaves the request where the job's worker looks each second."""
        try:
            self._mark(record.worker, job, record.run, _CANCEL)
        except OSError as error:
            raise self._failed(job, error) from error

    def open_jobs(self, worker: str) -> list[tuple[JobId, JobRecord]]:
        """The jobs of ``worker`` that are not over, in the order they came; marks of those that are go."""
        found = []
        for mark in self._marks(worker, _OPEN):
            record = self.read(mark.job)
            # One without its record is being created in this moment.
            if record is None or record.run != mark.run:
                continue
            if record.status.is_over:
                self.forget(mark.job, record)
            else:
                found.append((mark.job, record))
        return sorted(found, key=lambda one: one[1].created_at)

    def cancels(self, worker: str) -> tuple[Mark, ...]:
        """The jobs of ``worker`` that somebody asked to cancel."""
        return self._marks(worker, _CANCEL)

    def _created(self, job: JobId, record: JobRecord) -> bool:
        for _ in range(_TRIES):
            way = self._layout.way(self._layout.job(job.text))
            folder = open_or_make(self._layout, way)
            try:
                if not _put_new(folder, record):
                    return False
                if leads_to(self._layout, way, folder):
                    return True
            except FileNotFoundError:
                continue  # the job is cleaned up in this moment: it is made anew
            finally:
                os.close(folder)
        return False

    def _mark(self, worker: str, job: JobId, run: str, kind: str) -> int:
        """Leaves a mark; returns its mtime, in ns of the volume's clock."""
        folder = open_or_make(self._layout, self._marks_of(worker))
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            mark = os.open(f"{job}.{run}.{kind}", flags, 0o644, dir_fd=folder)
            try:
                return os.fstat(mark).st_mtime_ns
            finally:
                os.close(mark)
        finally:
            os.close(folder)

    def _marks(self, worker: str, kind: str) -> tuple[Mark, ...]:
        try:
            folder = open_below(self._layout, self._marks_of(worker), FOLDER)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_error("jobs", self._layout.job_marks / worker, error) from error
        try:
            names = names_in(folder)
        except OSError as error:
            raise storage_error("jobs", self._layout.job_marks / worker, error) from error
        finally:
            os.close(folder)
        parsed = (_parsed(name, kind) for name in names)
        return tuple(mark for mark in parsed if mark is not None)

    def _marks_of(self, worker: str) -> Sequence[str]:
        # Joined here: what a record of others says must not become an absolute path.
        return (*self._layout.way(self._layout.job_marks), worker)

    def _failed(self, job: JobId, error: OSError) -> MorpheusError:
        return storage_error(str(job), self._layout.job(job.text), error)


def _parsed(name: str, kind: str) -> Mark | None:
    rest, _, ending = name.rpartition(".")
    job, _, run = rest.rpartition(".")
    return Mark(JobId(job), run) if ending == kind and is_job_id(job) else None


def record_in(folder: int) -> JobRecord | None:
    """The record in the open folder of a job; None as ``JobStore.read``. Raises OSError."""
    try:
        return _record(os.open(_FILE, _READ, dir_fd=folder))
    except FileNotFoundError:
        return None


def _record(fd: int) -> JobRecord | None:
    with open(fd, "rb") as file:
        content = file.read()
    try:
        return JobRecord.model_validate_json(content)
    except ValidationError:
        return None


def _write_part(folder: int, record: JobRecord) -> str:
    """Writes the record beside its name, durable where nobody could tell its loss from a job never made."""
    part = f".{_FILE}.{secrets.token_hex(6)}.tmp"
    fd = os.open(part, _NEW, 0o644, dir_fd=folder)
    try:
        try:
            view = memoryview(record.model_dump_json().encode())
            while view:
                view = view[os.write(fd, view) :]
            if record.status.is_over or record.submissions == 0:
                os.fsync(fd)
        finally:
            # EDQUOT may come only here on MooseFS.
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise
    return part


def _put_new(folder: int, record: JobRecord) -> bool:
    """Puts the record where there is none, or one that is over; False where another one is, or comes first.

    Raises FileNotFoundError where the job is cleaned up meanwhile.
    """
    part = _write_part(folder, record)
    try:
        os.link(part, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        if not _replaced(folder, part):
            return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
    os.fsync(folder)
    return True


def _replaced(folder: int, part: str) -> bool:
    """Puts ``part`` in the place of a record that is over.

    Of many who find the same old record one gets the claim on it; who comes after that finds another record.
    A claim whose holder died keeps the job's id until it is cleaned up.
    """
    before = _record(os.open(_FILE, _READ, dir_fd=folder))
    if before is not None and not before.status.is_over:
        return False
    claim = f".{_FILE}.{before.run if before is not None else _TORN}.claim"
    try:
        os.close(os.open(claim, _NEW, 0o644, dir_fd=folder))
    except FileExistsError:
        return False
    try:
        if _record(os.open(_FILE, _READ, dir_fd=folder)) != before:
            return False
        os.rename(part, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
        return True
    finally:
        os.unlink(claim, dir_fd=folder)
