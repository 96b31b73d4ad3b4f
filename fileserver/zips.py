"""``GET /download/<job>``: all outputs of a job as one zip, made while it is sent, without a temporary file."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from starlette.types import Receive, Scope, Send

from fileserver.connection import Connection
from fileserver.disposition import file_headers
from fileserver.downloads import read_piece
from fileserver.threads import VolumeThreads
from fileserver.zip_format import Member, archive_bytes, directory
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.files import NoSuchFile, OpenFile, Output, list_outputs, open_output
from morpheus_boot.jobs.names import JobId, OutputPath
from morpheus_boot.volume.layout import Layout

_PIECE_BYTES: Final = 256 * 2**10


@dataclass(slots=True)
class _Reading:
    """A member on its way out: the open file, how far it was read, and the CRC so far."""

    file: OpenFile
    at: int = 0
    crc: int = 0


class Zips:
    """Sends whole jobs."""

    def __init__(self, layout: Layout, threads: VolumeThreads) -> None:
        self._layout = layout
        self._threads = threads

    async def send(self, job: JobId, *, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a GET or HEAD with ``job``'s outputs as they are listed now.

        Raises NoSuchFile, VolumeHangs, StorageFailed before the answer begins.
        """
        outputs = await self._threads.run(lambda: list_outputs(self._layout, job))
        if not outputs:
            raise NoSuchFile(str(job), "it has no outputs", "see what the job has made")
        members = _members(outputs)
        headers = [
            *file_headers(f"{job}.zip", inline=False),
            (b"content-length", b"%d" % archive_bytes(members)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        connection = Connection(scope, receive)
        sent: list[Member] = []
        for output, member in zip(outputs, members, strict=True):
            await _part(send, member.local_header())
            try:
                crc = await self._send_file(job, output, connection, send)
            except MorpheusError as error:
                await connection.cut(error)
                return
            if not await connection.wants_more():
                await connection.until_gone()
                return
            sent.append(replace(member, crc=crc))
            await _part(send, sent[-1].descriptor())
        await send({"type": "http.response.body", "body": directory(sent)})

    async def _send_file(
        self, job: JobId, output: Output, connection: Connection, send: Send
    ) -> int:
        """Sends as many bytes as were listed; returns their CRC. Raises NoSuchFile, StorageFailed, VolumeHangs."""
        file = await self._threads.run(
            lambda: open_output(self._layout, job, output.path), abandoned=OpenFile.close
        )
        reading = _Reading(file)
        try:
            while reading.at < output.size_bytes and await connection.wants_more():
                piece = await self._threads.run(lambda: _next(reading, output.size_bytes))
                await _part(send, piece)
        finally:
            self._threads.start(file.close, always=True)
        return reading.crc


def _next(reading: _Reading, size_bytes: int) -> bytes:
    piece = read_piece(reading.file, reading.at, min(_PIECE_BYTES, size_bytes - reading.at))
    reading.at += len(piece)
    reading.crc = zlib.crc32(piece, reading.crc)
    return piece


def _members(outputs: Sequence[Output]) -> list[Member]:
    members: list[Member] = []
    offset = 0
    for output in outputs:
        member = Member(_zip_name(output.path), output.size_bytes, output.mtime_ns // 10**9, offset)
        members.append(member)
        offset += member.stored_bytes
    return members


def _zip_name(path: OutputPath) -> bytes:
    """Windows takes a backslash for a separator, so that a name could lead out of the folder it is unpacked to."""
    return str(path).encode(errors="backslashreplace").replace(b"\\", b"_")


async def _part(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})
