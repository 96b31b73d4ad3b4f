"""What stands behind ``/uploads``: uploads whose bytes come in several requests, to any server of the volume."""

from contextlib import suppress
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from fileserver.answers import TooSlow, WrongOffset
from fileserver.input_counts import InputCounts
from fileserver.intake import Intake, PartFile, too_large
from fileserver.threads import VolumeThreads
from morpheus_boot.config.variables import Limits
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.journal import UploadPlan
from morpheus_boot.jobs.resumable import OpenUpload, ResumableUpload, UploadId, UploadStore
from morpheus_boot.volume.layout import Layout

# A server that dies loses so much at most, and who waits for the end of a request waits for no more.
_SETTLE_BYTES: Final = 16 * 2**20
_MEND: Final = "send what is left of the announced length"


class FileBytes:
    """A body that is nothing but a file's bytes."""

    def __init__(self) -> None:
        self.chunks: list[memoryview] = []
        self.chunks_bytes = 0
        self.size_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Takes the next piece."""
        if piece:
            self.chunks.append(memoryview(piece))
            self.chunks_bytes += len(piece)
            self.size_bytes += len(piece)

    def take_chunks(self) -> list[memoryview]:
        """What came since the last call."""
        taken, self.chunks, self.chunks_bytes = self.chunks, [], 0
        return taken


class TusUploads:
    """Begins uploads, goes on with them, tells how they stand, and ends them."""

    def __init__(
        self,
        layout: Layout,
        threads: VolumeThreads,
        limits: Limits,
        intake: Intake,
        counts: InputCounts,
    ) -> None:
        self.layout = layout
        self._store = UploadStore(layout, limits.upload_keeps_s)
        self._threads = threads
        self._limits = limits
        self._intake = intake
        self._counts = counts

    async def create(self, plan: UploadPlan) -> ResumableUpload:
        """Begins an upload; an empty one is complete at once.

        Raises UploadTooLarge, VolumeHangs, VolumeFull, StorageFailed; for an empty one also NameTaken, TooManyFiles.
        """
        if plan.size_bytes > self._limits.upload_bytes:
            raise too_large(self._limits.upload_bytes, "send less")
        store = self._store
        upload = await self._threads.run(
            lambda: store.create(plan), abandoned=lambda made: self._forget(made.id)
        )
        if plan.size_bytes:
            return upload
        opened = await self._open(upload.id)
        if opened.part is not None:
            file = PartFile(opened.part, self._threads, self._counts, _SETTLE_BYTES)
            try:
                await file.publish([], plan.job, plan.sub_dir, plan.name)
            except BaseException:
                await file.give_up()
                await self._threads.run(lambda: self._forget(upload.id))
                raise
        return await self.find(upload.id)

    async def find(self, upload: UploadId) -> ResumableUpload:
        """How an upload stands. Raises NoSuchUpload, UploadExpired, VolumeHangs, StorageFailed."""
        return await self._threads.run(lambda: self._store.find(upload))

    async def remove(self, upload: UploadId) -> None:
        """Ends an upload; the file of a complete one stays.

        Raises NoSuchUpload, UploadExpired, UploadLocked, VolumeHangs, StorageFailed.
        """
        await self._threads.run(lambda: self._store.remove(upload))

    async def append(
        self, upload: UploadId, offset_bytes: int, request: Request
    ) -> ResumableUpload:
        """Goes on with an upload at ``offset_bytes``, and publishes its file with the last of it.

        Raises WrongOffset, UploadTooLarge, TooSlow, NoSuchUpload, UploadExpired, UploadLocked, NameTaken,
        TooManyFiles, VolumeHangs, VolumeFull, StorageFailed; ClientDisconnect. What came and is durable stays.
        """
        opened = await self._open(upload)
        if opened.part is None:
            _check(opened.upload, offset_bytes, request)
            return opened.upload
        file = PartFile(opened.part, self._threads, self._counts, _SETTLE_BYTES)
        try:
            _check(opened.upload, offset_bytes, request)
            await self._receive(request, opened.upload, file)
        except BaseException:
            await file.give_up()
            raise
        return await self.find(upload)

    async def _receive(self, request: Request, upload: ResumableUpload, file: PartFile) -> None:
        body, plan = FileBytes(), upload.plan
        left_bytes = plan.size_bytes - upload.offset_bytes
        try:
            await self._intake.take(request, body, file, left_bytes, _MEND)
        except (ClientDisconnect, TooSlow):
            await file.keep(body.take_chunks())
            raise
        if body.size_bytes == left_bytes:
            await file.publish(body.take_chunks(), plan.job, plan.sub_dir, plan.name)
        else:
            await file.keep(body.take_chunks())

    async def _open(self, upload: UploadId) -> OpenUpload:
        return await self._threads.run(lambda: self._store.open(upload), abandoned=_let_go)

    def _forget(self, upload: UploadId) -> None:
        """Ends an upload that nobody was told of; what stays of it expires."""
        with suppress(MorpheusError):
            self._store.remove(upload)


def _let_go(opened: OpenUpload) -> None:
    with suppress(MorpheusError):
        opened.close()


def _check(upload: ResumableUpload, offset_bytes: int, request: Request) -> None:
    """Raises WrongOffset, UploadTooLarge."""
    if offset_bytes != upload.offset_bytes:
        raise WrongOffset(
            "upload",
            f"{upload.offset_bytes} bytes of it are here, not {offset_bytes}",
            "go on from there",
        )
    left_bytes = upload.plan.size_bytes - offset_bytes
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > left_bytes:
        raise too_large(left_bytes, _MEND)
