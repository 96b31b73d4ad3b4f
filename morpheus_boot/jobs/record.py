"""A job's record, as every worker of the volume reads it, and the view of a job that clients are answered."""

import mimetypes
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from morpheus_boot.jobs.files import Output, list_outputs
from morpheus_boot.jobs.names import InvalidName, JobId, OutputPath
from morpheus_boot.jobs.workflows import Graph
from morpheus_boot.volume.layout import Layout

_MEDIA: Final = ("image", "video", "audio")
# What Python's table does not know, or knows only where the system has its own.
_KINDS: Final = {
    "webp": "image",
    "avif": "image",
    "jxl": "image",
    "exr": "image",
    "webm": "video",
    "mkv": "video",
    "flac": "audio",
    "opus": "audio",
    "json": "text",
    "srt": "text",
}


def _parsed_by(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        try:
            return str(parse(text))
        except InvalidName as error:
            raise ValueError(str(error)) from None

    return AfterValidator(check)


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job."""
        return self not in {Status.QUEUED, Status.RUNNING}


class Form(StrEnum):
    """In which form a job came, and so is answered."""

    TEMPLATE = "morpheus"
    GRAPH = "worker-comfyui"


class Progress(BaseModel):
    """How far ComfyUI is with the graph."""

    model_config = ConfigDict(frozen=True)

    nodes_done: int = 0
    nodes: int = 0
    node: str | None = None
    class_type: str | None = None
    step: int | None = None
    steps: int | None = None


class JobRecord(BaseModel):
    """One submission of a job. ``run`` tells it from an earlier or later one under the same id.

    ``made`` are the paths below output/ of what it made, in the order of the graph's output nodes.
    Times are UTC, ISO 8601; ``posted_ns`` is the volume's own, as the mtime of files has it.
    """

    model_config = ConfigDict(frozen=True)

    run: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")
    worker: Annotated[str, _parsed_by(JobId)]
    form: Form
    workflow: str | None
    graph: Graph
    created_at: str
    posted_ns: int = 0
    status: Status = Status.QUEUED
    started_at: str | None = None
    ended_at: str | None = None
    prompt_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    submissions: int = 0
    progress: Progress | None = None
    error: str | None = None
    node_errors: dict[str, Any] | None = None
    made: tuple[Annotated[str, _parsed_by(OutputPath.parse)], ...] = ()


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


def now() -> str:
    """The time as records have it: to the microsecond, so that records sort in the order they were made."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def view_job(layout: Layout, job: JobId, record: JobRecord | None) -> JobView | None:
    """The job with its files; None where it has neither a record nor files. A job with files alone is done.

    Raises StorageFailed.
    """
    outputs = list_outputs(layout, job)
    if record is None and not outputs:
        return None
    folder = f"{layout.job(job.text)}/output"
    view = JobView(
        worker_job_id=job.text,
        status=Status.DONE,
        files=[_file(output, folder) for output in outputs],
    )
    if record is None:
        return view
    told = record.model_dump(include={"status", "worker", "error", "node_errors"})
    output = _answer(job, record, folder) if record.status is Status.DONE else None
    return view.model_copy(update={**told, "progress": record.progress, "output": output})


def kind_of(name: str) -> str:
    """``image``, ``video``, ``audio``, ``text`` or ``other``, by the file's ending."""
    suffix = PurePosixPath(name).suffix.removeprefix(".").lower()
    guessed = _KINDS.get(suffix) or (mimetypes.guess_type(name)[0] or "").partition("/")[0]
    return guessed if guessed in {"image", "video", "audio", "text"} else "other"


def _file(output: Output, folder: str) -> FileView:
    modified = datetime.fromtimestamp(output.mtime_ns / 1e9, UTC)
    return FileView(
        name=str(output.path),
        size_bytes=output.size_bytes,
        modified_at=modified.isoformat(timespec="seconds").replace("+00:00", "Z"),
        pod_path=f"{folder}/{output.path}",
        kind=kind_of(output.path.name),
    )


def _answer(job: JobId, record: JobRecord, folder: str) -> dict[str, Any]:
    if record.form is Form.GRAPH:
        # Its clients take each of images for a picture or a film.
        images: list[dict[str, str]] = []
        texts: list[dict[str, str]] = []
        for path in record.made:
            listed = texts if kind_of(path) == "text" else images
            listed.append({"filename": path, "type": "path", "data": f"{folder}/{path}"})
        none = {} if images else {"status": "success_no_images"}
        return {**none, "images": images, **({"texts": texts} if texts else {})}
    answer: dict[str, Any] = {"worker_job_id": job.text}
    for path in record.made:
        if (kind := kind_of(path)) in _MEDIA:
            answer[f"{kind}_pod_path"] = f"{folder}/{path}"
            break
    return {**answer, "files": [f"{folder}/{path}" for path in record.made]}
