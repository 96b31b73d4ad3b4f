"""A job as ``GET /jobs/<job>`` answers: what its record says, and the files that it has now."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from morpheus_boot.jobs.ending import kind_of
from morpheus_boot.jobs.folder import Output, list_outputs
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, Progress, Status
from morpheus_boot.volume.layout import Layout

_MEDIA: Final = ("image", "video", "audio")


class FileView(BaseModel):
    """A file that the job has made."""

    name: str
    size_bytes: int
    modified_at: str
    pod_path: str
    kind: str


class JobView(BaseModel):
    """A job, its files, and, where it is done, the answer in the form that it came in."""

    worker_job_id: str
    status: Status
    worker: str | None = None
    progress: Progress | None = None
    error: str | None = None
    node_errors: dict[str, Any] | None = None
    files: list[FileView] = []
    output: dict[str, Any] | None = None


def view_job(layout: Layout, job: JobId, record: JobRecord | None) -> JobView | None:
    """The job with its files; None where it has neither a record nor files. A job with files alone is done.

    Raises StorageFailed.
    """
    outputs = list_outputs(layout, job)
    if record is None and not outputs:
        return None
    folder = layout.job(job.text) / "output"
    files = [_file(output, f"{folder}/{output.path}") for output in outputs]
    if record is None:
        return JobView(worker_job_id=job.text, status=Status.DONE, files=files)
    return JobView(
        worker_job_id=job.text,
        status=record.status,
        worker=record.worker,
        progress=record.progress,
        error=record.error,
        node_errors=record.node_errors,
        files=files,
        output=_answer(job, record, {path: f"{folder}/{path}" for path in record.made}),
    )


def _file(output: Output, pod_path: str) -> FileView:
    modified = datetime.fromtimestamp(output.mtime_ns / 1e9, UTC)
    return FileView(
        name=str(output.path),
        size_bytes=output.size_bytes,
        modified_at=modified.isoformat(timespec="seconds").replace("+00:00", "Z"),
        pod_path=pod_path,
        kind=kind_of(output.path.name),
    )


def _answer(job: JobId, record: JobRecord, made: Mapping[str, str]) -> dict[str, Any] | None:
    if record.status is not Status.DONE:
        return None
    if record.form is Form.GRAPH:
        # Its clients take each for a picture or a film: a text is in the files alone.
        images = [
            {"filename": path.rpartition("/")[2], "type": "path", "data": pod_path}
            for path, pod_path in made.items()
            if kind_of(path) != "text"
        ]
        return {"images": images} if images else {"status": "success_no_images", "images": []}
    answer: dict[str, Any] = {"worker_job_id": job.text}
    for path, pod_path in made.items():
        if (kind := kind_of(path)) in _MEDIA:
            answer[f"{kind}_pod_path"] = pod_path
            break
    return {**answer, "files": list(made.values())}
