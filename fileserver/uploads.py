"""``POST /upload``: from the socket into a part file on the volume, and whole under its name or not there."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from fileserver.answers import TooSlow, UploadTooLarge
from fileserver.floor import Floor
from fileserver.form import UploadForm
from fileserver.input_counts import InputCounts
from fileserver.threads import VolumeThreads
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.part import UploadPart
from morpheus_boot.layout import Layout
from morpheus_boot.limits import Limits

_LOG: Final = logging.getLogger("morpheus.fileserver")

# All uploads together hold so much that is not yet written, in pieces between these sizes.
_PENDING_BYTES: Final = 16 * 2**20
_LARGEST_BATCH_BYTES: Final = 2**20
_SMALLEST_BATCH_BYTES: Final = 64 * 2**10
# One-byte pieces cost far more than their bytes.
_MOST_CHUNKS: Final = 512
# A final fsync of 1 GiB costs 0.4 s and more; so often in the background it is hidden.
_SETTLE_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload that is whole on the volume."""

    path: Path
    job: JobId
    sub_dir: SubDir
    name: FileName
    size_bytes: int

    @property
    def comfy_path(self) -> str:
        """As a node of ComfyUI takes it."""
        below = "/".join((self.job.text, "input", *self.sub_dir.parts, self.name.text))
        return f"{below} [output]"


class Uploads:
    """Receives uploads, as many at once as there are connections."""

    def __init__(self, layout: Layout, threads: VolumeThreads, limits: Limits) -> None:
        self._layout = layout
        self._threads = threads
        self._limits = limits
        self._counts = InputCounts(layout, limits.job_files)
        self._active = 0

    def forget(self, job: JobId) -> None:
        """Says that ``job`` was cleaned up."""
        self._counts.forget(job)

    async def receive(self, request: Request) -> Uploaded:
        """Takes the form from ``request`` and stores its file.

        Raises BadForm, BadField, InvalidName, FormTooLarge, UploadTooLarge, TooSlow, NameTaken,
        TooManyFiles, VolumeHangs, VolumeFull, StorageFailed; ClientDisconnect. Then nothing is left of it.
        """
        limits = self._limits
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.upload_bytes + limits.form_bytes:
            raise self._too_large()
        form = UploadForm(request.headers.get("content-type", ""), limits.form_bytes)
        file = _File(self._layout, self._threads, self._counts)
        self._active += 1
        try:
            await self._read(request, form, file)
            name = form.finish()
            uploaded = await file.publish(
                form.take_chunks(), form.job or JobId.new(), form.sub_dir, name
            )
        except BaseException:
            await file.discard()
            raise
        finally:
            self._active -= 1
        return uploaded

    async def _read(self, request: Request, form: UploadForm, file: "_File") -> None:
        floor = Floor(self._limits)
        size_bytes = 0
        try:
            async with asyncio.timeout(self._limits.upload_window_s) as timeout:
                floor.begin(timeout)
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    form.feed(piece)
                    floor.count(len(piece))
                    if form.chunks_bytes + size_bytes > self._limits.upload_bytes:
                        raise self._too_large()
                    if form.chunks_bytes >= self._batch_bytes or len(form.chunks) >= _MOST_CHUNKS:
                        size_bytes += form.chunks_bytes
                        await floor.pause(lambda: file.append(form.take_chunks()))
        except TimeoutError:
            raise TooSlow(
                "upload", f"less than {floor.bytes_per_s} bytes/s arrive", "try again"
            ) from None

    @property
    def _batch_bytes(self) -> int:
        share = _PENDING_BYTES // max(1, self._active) // 2
        return max(_SMALLEST_BATCH_BYTES, min(_LARGEST_BATCH_BYTES, share))

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(
            "upload", f"it is larger than {self._limits.upload_bytes} bytes", "send less"
        )


class _File:
    """The part file of one upload: one write under way while the next batch arrives."""

    def __init__(self, layout: Layout, threads: VolumeThreads, counts: InputCounts) -> None:
        self._part = UploadPart(layout)
        self._threads = threads
        self._counts = counts
        self._writing: asyncio.Future[None] | None = None
        self._settling: asyncio.Future[None] | None = None
        self._begun = False
        self._unsettled_bytes = 0

    async def append(self, chunks: list[memoryview]) -> None:
        """Hands ``chunks`` to a thread, after those before them are written."""
        await self._written()
        self._begun = True
        self._writing = self._threads.start(lambda: self._part.write(chunks))
        self._unsettled_bytes += sum(map(len, chunks))
        if self._unsettled_bytes >= _SETTLE_BYTES:
            await self._settled()
            self._settling = self._threads.start(self._part.settle)
            self._unsettled_bytes = 0

    async def publish(
        self, chunks: list[memoryview], job: JobId, sub_dir: SubDir, name: FileName
    ) -> Uploaded:
        """Writes the last ``chunks`` and gives the file its name."""
        await self._written()
        await self._settled()
        part, counts = self._part, self._counts

        def store() -> Uploaded:
            part.write(chunks)
            counts.add(job, sub_dir, name)
            return Uploaded(part.publish(job, sub_dir, name), job, sub_dir, name, part.size_bytes)

        self._begun = True
        return await self._threads.run(store)

    async def discard(self) -> None:
        """Removes what came; what the volume says about that is in the log alone."""
        for future in (self._writing, self._settling):
            if future is not None:
                future.add_done_callback(_heard)
        if not self._begun:
            return
        try:
            await self._threads.wait(self._threads.start(self._part.discard, always=True))
        except MorpheusError as error:
            _LOG.warning("a part is left until the next start: %s", error)

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await self._threads.wait(writing)

    async def _settled(self) -> None:
        if self._settling is not None:
            settling, self._settling = self._settling, None
            await self._threads.wait(settling)


def _heard(future: asyncio.Future[None]) -> None:
    """Takes note of a failure, so that asyncio does not report it as one that nobody saw."""
    if not future.cancelled():
        future.exception()
