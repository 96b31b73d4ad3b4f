"""Uploads: from the socket into a part on the volume, and whole under their name or not there."""

import asyncio
import logging
import threading
from collections import OrderedDict
from typing import Any, Final

from fastapi import FastAPI, Request
from pydantic import BaseModel

from fileserver.answers import Refused
from fileserver.bodies import FileBody, UploadForm, announced_bytes, receive_piece
from fileserver.metrics import Metrics
from fileserver.threads import VolumeThreads
from morpheus_boot.config.variables import Limits
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.files import count_inputs, has_input
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.uploads import Target, UploadPart
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.fileserver")

# All uploads together hold so much that is not yet written, in batches between these sizes.
_PENDING_BYTES: Final = 16 * 2**20
_LARGEST_BATCH_BYTES: Final = 2**20
_SMALLEST_BATCH_BYTES: Final = 64 * 2**10
# One-byte pieces cost far more than their bytes.
_MOST_CHUNKS: Final = 512
# A final fsync of 1 GiB costs 0.4 s and more; so often in the background it is hidden.
_SETTLE_BYTES: Final = 64 * 2**20
_REMEMBERED_JOBS: Final = 1024
_MEND: Final = "send less"

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "worker_job_id": {
                            "type": "string",
                            "description": "Without it the upload gets a job of its own.",
                        },
                        "sub_dir": {
                            "type": "string",
                            "description": "Folders below the job's input.",
                        },
                    },
                }
            }
        },
    }
}


class UploadAnswer(BaseModel):
    """Where an upload now lies; ``comfy_path`` is as a node of ComfyUI takes it."""

    message: str
    pod_path: str
    comfy_path: str
    worker_job_id: str


class Intake:
    """What all kinds of uploads share: their memory, their threads, and how many files a job may have."""

    def __init__(self, layout: Layout, threads: VolumeThreads, limits: Limits) -> None:
        self.layout = layout
        self.threads = threads
        self.limits = limits
        self.counts = InputCounts(layout, limits.job_files)
        self._under_way = 0

    async def take(
        self, request: Request, body: FileBody, file: "PartFile", most_bytes: int, mend: str
    ) -> None:
        """Brings the file in ``request`` to ``file``; the last of it is left in ``body``.

        Raises Refused (with ``mend``) for more than ``most_bytes`` of it, which are not written; TooSlow,
        VolumeHangs, VolumeFull, StorageFailed; ClientDisconnect; and what ``body`` raises.
        """
        self._under_way += 1
        try:
            more = True
            while more:
                piece, more = await receive_piece(request, self.limits)
                body.feed(piece)
                if body.size_bytes > most_bytes:
                    raise too_large(most_bytes, mend)
                if body.chunks_bytes >= self._batch_bytes or len(body.chunks) >= _MOST_CHUNKS:
                    await file.append(body.take_chunks())
        finally:
            self._under_way -= 1

    @property
    def _batch_bytes(self) -> int:
        share = _PENDING_BYTES // max(1, self._under_way) // 2
        return max(_SMALLEST_BATCH_BYTES, min(_LARGEST_BATCH_BYTES, share))


class PartFile:
    """A part as one request writes it: one batch is written while the next arrives."""

    def __init__(self, part: UploadPart, intake: Intake, settle_bytes: int = _SETTLE_BYTES) -> None:
        """After each ``settle_bytes`` they are brought to the disk in the background."""
        self._part = part
        self._threads = intake.threads
        self._counts = intake.counts
        self._settle_bytes = settle_bytes
        self._writing: asyncio.Future[None] | None = None
        self._settling: asyncio.Future[None] | None = None
        self._unsettled_bytes = 0

    async def append(self, chunks: list[memoryview]) -> None:
        """Hands ``chunks`` to a thread, after those before them are written."""
        await self._written()
        self._writing = self._threads.start(lambda: self._part.write(chunks))
        self._unsettled_bytes += sum(map(len, chunks))
        if self._unsettled_bytes >= self._settle_bytes:
            await self._settled()
            self._settling = self._threads.start(self._part.settle)
            self._unsettled_bytes = 0

    async def publish(self, chunks: list[memoryview], target: Target) -> int:
        """Writes the last ``chunks`` and gives the file its name; returns its size."""
        await self._written()
        await self._settled()

        def store() -> int:
            self._part.write(chunks)
            self._counts.add(target)
            self._part.publish(target)
            return self._part.size_bytes

        return await self._threads.run(store)

    async def keep(self, chunks: list[memoryview]) -> None:
        """Writes ``chunks`` and lets go of a part that keeps what is durable; returns when all that came is."""
        await self.append(chunks)
        await self._written()
        await self._settled()
        await self._threads.run(self._part.give_up)

    async def give_up(self) -> None:
        """Lets go of the part; what the volume says about that is in the log alone."""
        for future in (self._writing, self._settling):
            if future is not None:
                future.add_done_callback(_heard)
        try:
            await self._threads.wait(self._threads.start(self._part.give_up, always=True))
        except MorpheusError as error:
            _LOG.warning("an upload was given up: %s", error)

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await self._threads.wait(writing)

    async def _settled(self) -> None:
        if self._settling is not None:
            settling, self._settling = self._settling, None
            await self._threads.wait(settling)


class InputCounts:
    """How many files each job's input holds, so that the limit costs no listing for every upload.

    Counts by what this server stored; lists a job when it first meets it, and before it refuses. Safe from any
    thread. Other workers' uploads to the same job are seen when it is listed.
    """

    def __init__(self, layout: Layout, limit: int) -> None:
        self._layout = layout
        self._limit = limit
        self._counts: OrderedDict[JobId, int] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, target: Target) -> None:
        """Counts one more file. Raises Refused where the job is full and has none of that name, StorageFailed."""
        job = target.job
        with self._lock:
            known = self._counts.get(job)
        # A replaced file was counted twice: before refusing, look.
        if known is None or known >= self._limit:
            known = count_inputs(self._layout, job)
            if known >= self._limit:
                if has_input(self._layout, job, target.sub_dir, target.name):
                    return
                raise Refused(
                    409,
                    str(job),
                    f"its input holds {known} files",
                    "clean it up, or use another job",
                )
            with self._lock:
                self._counts[job] = known
        with self._lock:
            self._counts[job] = self._counts.get(job, known) + 1
            self._counts.move_to_end(job)
            if len(self._counts) > _REMEMBERED_JOBS:
                self._counts.popitem(last=False)

    def forget(self, job: JobId) -> None:
        """Says that ``job`` was cleaned up."""
        with self._lock:
            self._counts.pop(job, None)


def too_large(most_bytes: int, mend: str) -> Refused:
    """The error for an upload of more than ``most_bytes``."""
    return Refused(413, "upload", f"it is larger than {most_bytes} bytes", mend)


def upload_answer(layout: Layout, target: Target, size_bytes: int) -> UploadAnswer:
    """What is said of a stored upload."""
    below = "/".join((target.job.text, "input", *target.sub_dir.parts, target.name.text))
    return UploadAnswer(
        message=f"{target.name}: {size_bytes} bytes stored",
        pod_path=str(layout.jobs / below),
        comfy_path=f"{below} [output]",
        worker_job_id=target.job.text,
    )


def add_upload_route(app: FastAPI, intake: Intake, metrics: Metrics) -> None:
    """Adds ``POST /upload``."""

    @app.post("/upload", openapi_extra=_FORM)
    async def upload(request: Request) -> UploadAnswer:
        limits = intake.limits
        if announced_bytes(request) > limits.upload_bytes + limits.form_bytes:
            raise too_large(limits.upload_bytes, _MEND)
        form = UploadForm(request.headers.get("content-type", ""), limits.form_bytes)
        file = PartFile(UploadPart(intake.layout), intake)
        try:
            await intake.take(request, form, file, limits.upload_bytes, _MEND)
            name = form.finish()
            target = Target(form.job or JobId.new(), form.sub_dir, name)
            size_bytes = await file.publish(form.take_chunks(), target)
        except BaseException:
            await file.give_up()
            raise
        metrics.uploaded.inc(size_bytes)
        return upload_answer(intake.layout, target, size_bytes)


def _heard(future: asyncio.Future[None]) -> None:
    """Takes note of a failure, so that asyncio does not report it as one that nobody saw."""
    if not future.cancelled():
        future.exception()
