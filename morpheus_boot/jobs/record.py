"""``job.json``: a job's request and where it stands, as every worker of the volume reads it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from morpheus_boot.jobs.templates import Graph


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
    worker: str
    form: Form
    workflow: str | None
    graph: Graph
    created_at: str
    posted_ns: int = 0
    status: Status = Status.QUEUED
    started_at: str | None = None
    ended_at: str | None = None
    prompt_id: str | None = None
    submissions: int = 0
    progress: Progress | None = None
    error: str | None = None
    node_errors: dict[str, Any] | None = None
    made: tuple[str, ...] = ()


def now() -> str:
    """The time as records have it: to the microsecond, so that records sort in the order they were made."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
