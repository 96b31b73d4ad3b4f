"""Jobs whose worker is gone: whoever asks for one ends it, with that cause, and gc those that nobody asks for."""

import shutil
from contextlib import suppress

from morpheus_boot.cache.lock.workers import seen_worker, seen_workers, volume_time
from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord, Status, now
from morpheus_boot.jobs.store import JobGone, JobStore
from morpheus_boot.volume.layout import Layout


def settle_lost(layout: Layout, job: JobId, record: JobRecord, silence_s: float) -> JobRecord:
    """``record``, or the failed one in its place, where its worker has ended or is silent for ``silence_s``.

    Raises VolumeFull, StorageFailed.
    """
    cause = _loss(layout, job, record.worker, silence_s)
    if cause is None:
        return record
    store = JobStore(layout)
    failed = record.model_copy(
        update={"status": Status.FAILED, "error": cause, "ended_at": now(), "progress": None}
    )
    try:
        store.update(job, failed)
    except JobGone:
        return store.read(job) or failed
    except MorpheusError:
        return failed  # a volume that is full or read-only: it is answered all the same
    store.forget(job, record)
    return failed


def gone_workers(layout: Layout, silence_s: float) -> list[str]:
    """The workers that left marks of open jobs and gave no sign since, for ``silence_s``. Raises OSError."""
    before = volume_time(layout) - silence_s
    beating = {seen.worker for seen in seen_workers(layout) if seen.age_s < silence_s}
    gone = []
    for folder in sorted(layout.job_marks.glob("*")):
        with suppress(FileNotFoundError):
            if folder.name not in beating and folder.stat().st_mtime < before:
                gone.append(folder.name)
    return gone


def settle_worker(layout: Layout, worker: str, silence_s: float) -> bool:
    """Ends the open jobs of a gone worker as settle_lost() does, and removes its marks; False where one stays open.

    Without its marks a worker of that name would not find them. Raises VolumeFull, StorageFailed, OSError.
    """
    store = JobStore(layout)
    for job, record in store.open_jobs(worker):
        settle_lost(layout, job, record, silence_s)
    if store.open_jobs(worker):
        return False
    with suppress(FileNotFoundError):
        shutil.rmtree(layout.job_marks / worker)
    return True


def _loss(layout: Layout, job: JobId, worker: str, silence_s: float) -> str | None:
    """Why the job will never be done; None while its worker lives, by the volume's own clock."""
    path = layout.job(job.text) / "job.json"
    try:
        seen = seen_worker(layout, worker)
        touched_s = volume_time(layout) - path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(str(job), path, error) from error
    if seen is not None and seen.ended:
        return f"its worker {worker} was stopped"
    silent_s = touched_s if seen is None else min(seen.age_s, touched_s)
    if silent_s < silence_s:
        return None
    return f"its worker {worker} is gone: no sign of it for {silent_s:.0f} s"
