"""From the socket into a part file: what all kinds of uploads share."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import Request
from starlette.requests import ClientDisconnect

from fileserver.answers import TooSlow, UploadTooLarge
from fileserver.floor import Floor
from fileserver.input_counts import InputCounts
from fileserver.threads import VolumeThreads
from morpheus_boot.config.variables import Limits
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.part import UploadPart

_LOG: Final = logging.getLogger("morpheus.fileserver")

# All uploads together hold so much that is not yet written, in pieces between these sizes.
_PENDING_BYTES: Final = 16 * 2**20
_LARGEST_BATCH_BYTES: Final = 2**20
_SMALLEST_BATCH_BYTES: Final = 64 * 2**10
# One-byte pieces cost far more than their bytes.
_MOST_CHUNKS: Final = 512


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload that is whole on the volume."""

    job: JobId
    sub_dir: SubDir
    name: FileName
    size_bytes: int


class Body(Protocol):
    """Finds a file's bytes in a request's body; ``chunks`` holds those that were not taken yet."""

    chunks: list[memoryview]
    chunks_bytes: int

    def feed(self, piece: bytes) -> None:
        """Takes the next piece of the body."""

    def take_chunks(self) -> list[memoryview]:
        """What came of the file since the last call."""


class PartFile:
    """The part file of one upload: one write under way while the next batch arrives."""

    def __init__(
        self, part: UploadPart, threads: VolumeThreads, counts: InputCounts, settle_bytes: int
    ) -> None:
        """After each ``settle_bytes`` they are brought to the disk in the background."""
        self._part = part
        self._threads = threads
        self._counts = counts
        self._settle_bytes = settle_bytes
        self._writing: asyncio.Future[None] | None = None
        self._settling: asyncio.Future[None] | None = None
        self._begun = part.is_open
        self._unsettled_bytes = 0

    async def append(self, chunks: list[memoryview]) -> None:
        """Hands ``chunks`` to a thread, after those before them are written."""
        await self._written()
        self._begun = True
        self._writing = self._threads.start(lambda: self._part.write(chunks))
        self._unsettled_bytes += sum(map(len, chunks))
        if self._unsettled_bytes >= self._settle_bytes:
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
            part.publish(job, sub_dir, name)
            return Uploaded(job, sub_dir, name, part.size_bytes)

        self._begun = True
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
        if not self._begun:
            return
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


class Intake:
    """Takes the bodies of uploads, as many at once as there are connections."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._active = 0

    async def take(
        self, request: Request, body: Body, file: PartFile, most_bytes: int, mend: str
    ) -> None:
        """Brings the file in ``request`` to ``file``; the last of it is left in ``body``.

        Raises UploadTooLarge (with ``mend``) for more than ``most_bytes`` of it, which are not written; TooSlow,
        VolumeHangs, VolumeFull, StorageFailed; ClientDisconnect; and what ``body`` raises.
        """
        self._active += 1
        try:
            await self._take(request, body, file, most_bytes, mend)
        finally:
            self._active -= 1

    async def _take(
        self, request: Request, body: Body, file: PartFile, most_bytes: int, mend: str
    ) -> None:
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
                    body.feed(piece)
                    floor.count(len(piece))
                    if body.chunks_bytes + size_bytes > most_bytes:
                        raise too_large(most_bytes, mend)
                    if body.chunks_bytes >= self._batch_bytes or len(body.chunks) >= _MOST_CHUNKS:
                        size_bytes += body.chunks_bytes
                        await floor.pause(lambda: file.append(body.take_chunks()))
        except TimeoutError:
            raise TooSlow(
                "upload", f"less than {floor.bytes_per_s} bytes/s arrive", "try again"
            ) from None

    @property
    def _batch_bytes(self) -> int:
        share = _PENDING_BYTES // max(1, self._active) // 2
        return max(_SMALLEST_BATCH_BYTES, min(_LARGEST_BATCH_BYTES, share))


def too_large(most_bytes: int, mend: str) -> UploadTooLarge:
    """The error for an upload of more than ``most_bytes``."""
    return UploadTooLarge("upload", f"it is larger than {most_bytes} bytes", mend)


def _heard(future: asyncio.Future[None]) -> None:
    """Takes note of a failure, so that asyncio does not report it as one that nobody saw."""
    if not future.cancelled():
        future.exception()
