"""Where jobs stand: each one's record, and each worker's marks of its open jobs and of requests to cancel them.

``.morpheus/jobs/<job>.json`` is a job's record. Whoever replaces it holds an flock on the one that is there.
``.morpheus/jobs-open/<worker>/`` has a mark ``<job>.<run>.open`` for each job of that worker that is not over, so that
a restarted worker finds its own without reading all records, and ``<job>.<run>.cancel`` where any worker asked to
cancel it: one listing a second shows both.
"""

import errno
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.lock.workers import seen_worker, seen_workers, volume_time
from morpheus_boot.errors import Exit, MorpheusError, StorageFailed, storage_errors
from morpheus_boot.jobs.files import count_inputs
from morpheus_boot.jobs.names import JobId, SubDir
from morpheus_boot.jobs.record import JobRecord, Status, now
from morpheus_boot.jobs.request import InputImage, JobRequest, WrongField
from morpheus_boot.jobs.uploads import Target, UploadPart
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.flock import try_flock
from morpheus_boot.volume.layout import Layout, is_job_id
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.fileserver")

_OPEN: Final = "open"
_CANCEL: Final = "cancel"
# O_NONBLOCK: a FIFO in its place must not hang who opens it.
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Opening a link, a folder or a socket in a record's place.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
# More than a body of 64 MB can become.
_MOST_RECORD_BYTES: Final = 128 * 2**20
# Others hold a record's lock for as long as it takes to write one.
_LOCK_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.01
# A job that is cleaned up while it is posted is made anew; more often than this is a loop.
_TRIES: Final = 5


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


class JobTooLarge(MorpheusError):
    """The job's graph, with its parameters in it, is larger than a record may be."""

    exit_code = Exit.USAGE


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
        """The job's record; None where it has none, or what lies there is none, which the log then names."""
        path = self._layout.job_record(job.text)
        with storage_errors(str(job), path):
            try:
                fd = os.open(path, os.O_RDONLY | _SAFELY)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                _LOG.warning("job %s: %s is no file, and counts as no record", job, path)
                return None
            try:
                return _record_in(fd, job)
            finally:
                os.close(fd)

    def post(self, worker: str, request: JobRequest, most_files: int) -> JobRecord:
        """Creates the job as ``worker``'s, with its pictures in its input, which holds up to ``most_files``.

        Raises JobTaken, JobTooLarge, WrongField, NameTaken.
        """
        if request.images:
            there = count_inputs(self._layout, request.job)
            if there + len(request.images) > most_files:
                raise WrongField(
                    "images",
                    f"with the {there} files that are there already they are more than {most_files}",
                    "clean the job up, or use another one",
                )
        record = self.create(
            request.job,
            JobRecord(
                run=secrets.token_hex(6),
                worker=worker,
                form=request.form,
                workflow=request.workflow,
                graph=request.graph,
                created_at=now(),
            ),
        )
        try:
            for image in request.images:
                self._store(request.job, image)
        except MorpheusError as error:
            self._end(request.job, record, Status.FAILED, str(error))
            raise
        return record

    def create(self, job: JobId, record: JobRecord) -> JobRecord:
        """Writes the job's record where there is none, or one that is over, with the volume's time in it.

        Raises JobTaken where the job is queued or running, here or anywhere; JobTooLarge.
        """
        path = self._layout.job_record(job.text)
        with storage_errors(str(job), path):
            posted_ns = self._mark(record.worker, job, record.run, _OPEN)
            record = record.model_copy(update={"posted_ns": posted_ns})
            try:
                content = _content(job, record)
                for _ in range(_TRIES):
                    with suppress(FileExistsError):
                        write_whole(path, content, exclusive=True)
                        return record
                    with suppress(JobGone), self._held(job) as before:
                        if before is not None and not before.status.is_over:
                            raise JobTaken(job)
                        write_whole(path, content)
                        return record
            except MorpheusError:
                self.forget(job, record)
                raise
        raise StorageFailed(str(job), "it is cleaned up again and again", "post it again")

    def update(self, job: JobId, record: JobRecord) -> None:
        """Replaces the job's record by a later one of the same run, whole; durable where the run is over.

        Raises JobGone where the record on the volume is another run's, or over, or not there.
        """
        path = self._layout.job_record(job.text)
        content = _content(job, record)
        with storage_errors(str(job), path), self._held(job) as before:
            if before is None or before.run != record.run or before.status.is_over:
                raise JobGone(job)
            write_whole(path, content, durable=record.status.is_over)

    def forget(self, job: JobId, record: JobRecord) -> None:
        """Removes the run's marks: it is over."""
        folder = self._layout.job_marks / record.worker
        with storage_errors(str(job), folder):
            for kind in (_OPEN, _CANCEL):
                (folder / f"{job}.{record.run}.{kind}").unlink(missing_ok=True)

    def remove(self, job: JobId) -> bool:
        """Removes the record, or whatever lies in its place; False where there was nothing."""
        path = self._layout.job_record(job.text)
        with storage_errors(str(job), path):
            return _remove(path)

    def ask_to_cancel(self, job: JobId, record: JobRecord) -> None:
        """Leaves the request where the job's worker looks each second."""
        with storage_errors(str(job), self._layout.job_marks / record.worker):
            self._mark(record.worker, job, record.run, _CANCEL)

    def open_jobs(self, worker: str) -> list[tuple[JobId, JobRecord]]:
        """The jobs of ``worker`` that are not over, in the order they came; marks of those that are go."""
        found = []
        for mark in self._marks(worker, _OPEN):
            try:
                record = self.read(mark.job)
            except MorpheusError as error:
                _LOG.warning("job %s is left out: %s", mark.job, error)
                continue
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

    def cancel_unheld(self, mark: Mark) -> None:
        """Ends a job that its worker was asked to cancel and does not have in hand."""
        record = self.read(mark.job)
        if record is not None and record.run == mark.run:
            self._end(mark.job, record, Status.CANCELLED, None)

    def settle_lost(self, job: JobId, record: JobRecord, silence_s: float) -> JobRecord:
        """``record``, or the failed one in its place, where its worker has ended or is silent for ``silence_s``."""
        cause = self._loss(job, record.worker, silence_s)
        if cause is None:
            return record
        return self._end(job, record, Status.FAILED, cause)

    def gone_workers(self, silence_s: float) -> list[str]:
        """The workers that left marks of open jobs and gave no sign since, for ``silence_s``. Raises OSError."""
        before = volume_time(self._layout) - silence_s
        beating = {seen.worker for seen in seen_workers(self._layout) if seen.age_s < silence_s}
        gone = []
        for folder in sorted(self._layout.job_marks.glob("*")):
            with suppress(FileNotFoundError):
                if folder.name not in beating and folder.lstat().st_mtime < before:
                    gone.append(folder.name)
        return gone

    def settle_worker(self, worker: str, silence_s: float) -> bool:
        """Ends the open jobs of a gone worker as settle_lost() does, and removes its marks; False where one stays open.

        Without its marks a worker of that name would not find them. Raises OSError.
        """
        for job, record in self.open_jobs(worker):
            self.settle_lost(job, record, silence_s)
        if self.open_jobs(worker):
            return False
        _remove(self._layout.job_marks / worker)
        return True

    def _end(self, job: JobId, record: JobRecord, status: Status, error: str | None) -> JobRecord:
        """Ends a run that nobody works at; returns how it stands then."""
        ended = record.model_copy(
            update={"status": status, "error": error, "ended_at": now(), "progress": None}
        )
        try:
            self.update(job, ended)
        except JobGone:
            return self.read(job) or ended
        except MorpheusError:
            return ended  # a volume that is full or read-only: it is answered all the same
        self.forget(job, record)
        return ended

    def _loss(self, job: JobId, worker: str, silence_s: float) -> str | None:
        """Why the job will never be done; None while its worker lives, by the volume's own clock."""
        path = self._layout.job_record(job.text)
        with storage_errors(str(job), path):
            try:
                seen = seen_worker(self._layout, worker)
                touched_s = volume_time(self._layout) - path.lstat().st_mtime
            except FileNotFoundError:
                return None
        if seen is not None and seen.ended:
            return f"its worker {worker} was stopped"
        silent_s = touched_s if seen is None else min(seen.age_s, touched_s)
        if silent_s < silence_s:
            return None
        return f"its worker {worker} is gone: no sign of it for {silent_s:.0f} s"

    @contextmanager
    def _held(self, job: JobId) -> Iterator[JobRecord | None]:
        """The job's record, which nobody else replaces meanwhile; None where it can't be read.

        What is no file is removed. Raises JobGone where there is none, StorageFailed, OSError.
        """
        path = self._layout.job_record(job.text)
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            fd = _open_to_replace(path, job)
            try:
                if try_flock(fd) and _is_at(fd, path):
                    yield _record_in(fd, job)
                    return
            finally:
                os.close(fd)
            if time.monotonic() > until:
                raise StorageFailed(
                    str(job), "another worker holds its record", "try again in a moment"
                )
            time.sleep(_LOCK_POLL_S)

    def _store(self, job: JobId, image: InputImage) -> None:
        part = UploadPart(self._layout)
        try:
            part.write([memoryview(image.content)])
            part.publish(Target(job, SubDir(), image.name))
        finally:
            part.give_up()

    def _mark(self, worker: str, job: JobId, run: str, kind: str) -> int:
        """Leaves a mark; returns its mtime, in ns of the volume's clock."""
        folder = self._layout.job_marks / worker
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / f"{job}.{run}.{kind}", os.O_WRONLY | os.O_CREAT | _SAFELY, 0o644)
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)

    def _marks(self, worker: str, kind: str) -> tuple[Mark, ...]:
        folder = self._layout.job_marks / worker
        with storage_errors("jobs", folder), suppress(FileNotFoundError):
            parsed = [_parsed(path.name, kind) for path in folder.iterdir()]
            return tuple(mark for mark in parsed if mark is not None)
        return ()


def _parsed(name: str, kind: str) -> Mark | None:
    rest, _, ending = name.rpartition(".")
    job, _, run = rest.rpartition(".")
    return Mark(JobId(job), run) if ending == kind and is_job_id(job) else None


def _content(job: JobId, record: JobRecord) -> bytes:
    try:
        content = to_document(record)
    except ValueError as error:
        cause = f"its record can't be written as JSON ({error})"
        raise StorageFailed(str(job), cause, "report this") from error
    if len(content) > _MOST_RECORD_BYTES:
        raise JobTooLarge(
            str(job), f"it makes {len(content)} bytes of JSON", "upload its files, and name them"
        )
    return content


def _record_in(fd: int, job: JobId) -> JobRecord | None:
    """The record in an open file; None where it holds none. Raises OSError."""
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode) or seen.st_size > _MOST_RECORD_BYTES:
        _LOG.warning("job %s: no file, or one too large, counts as no record", job)
        return None
    with open(fd, "rb", closefd=False) as file:
        content = file.read(_MOST_RECORD_BYTES)
    try:
        return from_document(JobRecord, content)
    except ValueError as error:
        _LOG.warning("job %s: its record is not believed (%.200s)", job, error)
        return None


def _open_to_replace(path: Path, job: JobId) -> int:
    try:
        fd = os.open(path, os.O_RDWR | _SAFELY)
    except FileNotFoundError:
        raise JobGone(job) from None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        _remove(path)
        raise JobGone(job) from None
    return fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        # EPERM is what unlink(2) says of a folder on some file systems.
        if error.errno not in {errno.EISDIR, errno.EPERM} or not path.is_dir():
            raise
        shutil.rmtree(path)
    return True
