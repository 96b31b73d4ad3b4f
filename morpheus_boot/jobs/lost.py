"""Jobs whose worker is gone: whoever asks for one ends it, with that cause."""

from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord, Status, now
from morpheus_boot.jobs.store import JobGone, JobStore
from morpheus_boot.layout import Layout
from morpheus_boot.workers import seen_worker, volume_time


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
