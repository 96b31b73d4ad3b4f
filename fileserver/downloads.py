"""``GET /download/<job>/<file>``: from the volume to the socket, as fast as the page cache gives it."""

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from fileserver.conditions import Selection, etag_of, last_modified_of, select
from fileserver.connection import Connection
from fileserver.disposition import file_headers
from fileserver.threads import VolumeThreads
from morpheus_boot.errors import MorpheusError, StorageFailed, storage_error
from morpheus_boot.jobs.files import OpenFile, open_output
from morpheus_boot.jobs.names import JobId, OutputPath
from morpheus_boot.volume.layout import Layout

# All downloads together hold so much that the sockets have not taken, in pieces between these sizes.
_PENDING_BYTES: Final = 8 * 2**20
_LARGEST_PIECE_BYTES: Final = 256 * 2**10
_SMALLEST_PIECE_BYTES: Final = 16 * 2**10
# All downloads together send so much before each other request has had its turn: a few milliseconds' work.
_ROUND_BYTES: Final = 2**20
# Up to here a file is read by the thread that opens it: each visit to a thread costs more than the reading.
_SMALL_BYTES: Final = 64 * 2**10


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open file; a small one is read and closed already.

    ``asks_cache``: its file system can say whether a read would wait. One that can't may hang in anything.
    """

    file: OpenFile
    content: bytes | bytearray | None
    asks_cache: bool


class Downloads:
    """Sends files of jobs' outputs."""

    def __init__(self, layout: Layout, threads: VolumeThreads) -> None:
        self._layout = layout
        self._threads = threads
        self._active = 0
        self._asks_cache = False
        self._buffers: list[bytearray] = []

    async def send(
        self,
        job: JobId,
        path: OutputPath,
        *,
        inline: bool,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answers a GET or HEAD of ``path``; ``inline`` shows what a browser can show.

        Raises NoSuchFile, VolumeHangs, StorageFailed before the answer begins.
        """
        opened = _open_at_once(self._layout, job, path) if self._asks_cache else None
        if opened is None:
            opened = await self._threads.run(
                lambda: _open(self._layout, job, path), abandoned=_close_abandoned
            )
            self._asks_cache = opened.asks_cache
        self._active += 1
        try:
            chosen = select(scope["method"], Headers(scope=scope), opened.file)
            headers = _headers(opened.file, chosen, inline=inline)
            await send({"type": "http.response.start", "status": chosen.status, "headers": headers})
            if scope["method"] == "HEAD" or not chosen.length:
                await send({"type": "http.response.body"})
            elif opened.content is not None:
                piece = opened.content[chosen.first : chosen.first + chosen.length]
                await send({"type": "http.response.body", "body": piece})
            else:
                await self._stream(opened, chosen, Connection(scope, receive), send)
        finally:
            self._active -= 1
            if opened.content is None:
                if opened.asks_cache:
                    opened.file.close()
                else:
                    self._threads.start(opened.file.close, always=True)

    async def _stream(
        self, opened: _Opened, chosen: Selection, connection: Connection, send: Send
    ) -> None:
        at, left, turn_bytes = chosen.first, chosen.length, 0
        while left:
            if not await connection.wants_more():
                await connection.until_gone()
                return
            share = _PENDING_BYTES // self._active
            size_bytes = max(_SMALLEST_PIECE_BYTES, min(_LARGEST_PIECE_BYTES, share))
            buffer = self._buffer(size_bytes)
            try:
                piece = await self._read(opened, buffer, at, min(left, size_bytes))
            except MorpheusError as error:
                await connection.cut(error)
                return
            at += len(piece)
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if connection.unsent_bytes == 0 and size_bytes == _LARGEST_PIECE_BYTES:
                self._buffers.append(buffer)
            turn_bytes += len(piece)
            if left and turn_bytes >= _ROUND_BYTES // self._active:
                # A fast client's socket takes all at once: without this no other would have its turn.
                await asyncio.sleep(0)
                turn_bytes = 0

    def _buffer(self, size_bytes: int) -> bytearray:
        """One that the socket has emptied: a new one costs as much as the reading, in zeros and page faults."""
        if size_bytes == _LARGEST_PIECE_BYTES and self._buffers:
            return self._buffers.pop()
        return bytearray(size_bytes)

    async def _read(
        self, opened: _Opened, buffer: bytearray, at: int, size_bytes: int
    ) -> bytes | memoryview:
        """The next piece, up to ``size_bytes`` of it: at once from the page cache, else by a thread."""
        if opened.asks_cache:
            into = memoryview(buffer)[:size_bytes]
            try:
                got = os.preadv(opened.file.fd, [into], at, os.RWF_NOWAIT)
            except OSError:
                got = 0
            if got:
                return into[:got]
        return await self._threads.run(lambda: read_piece(opened.file, at, size_bytes))


def read_piece(file: OpenFile, at: int, size_bytes: int) -> bytes:
    """Up to ``size_bytes`` of ``file`` from ``at`` on, and at least one.

    Raises StorageFailed, also where the file ends there: it was longer when it was opened.
    """
    try:
        piece = os.pread(file.fd, size_bytes, at)
    except OSError as error:
        raise storage_error(file.name, Path(file.name), error) from error
    if not piece:
        raise StorageFailed(file.name, "it became shorter while it was sent", "download it again")
    return piece


def _open(layout: Layout, job: JobId, path: OutputPath) -> _Opened:
    file = open_output(layout, job, path)
    asks_cache = _asks_cache(file.fd)
    if file.size_bytes > _SMALL_BYTES:
        return _Opened(file, None, asks_cache)
    try:
        content = read_piece(file, 0, file.size_bytes) if file.size_bytes else b""
    finally:
        file.close()
    return _Opened(replace(file, size_bytes=len(content)), content, asks_cache)


def _open_at_once(layout: Layout, job: JobId, path: OutputPath) -> _Opened | None:
    """The same without waiting for a disk, and so without a thread; None where it would wait.

    Raises NoSuchFile, StorageFailed.
    """
    try:
        file = open_output(layout, job, path, at_once=True)
    except BlockingIOError:
        return None
    if file.size_bytes > _SMALL_BYTES:
        return _Opened(file, None, asks_cache=True)
    buffer = bytearray(file.size_bytes)
    try:
        got = os.preadv(file.fd, [buffer], 0, os.RWF_NOWAIT)
    except OSError:
        return None
    finally:
        file.close()
    return _Opened(file, buffer, asks_cache=True) if got == file.size_bytes else None


def _asks_cache(fd: int) -> bool:
    """FUSE and network file systems refuse RWF_NOWAIT; ext4, XFS and their like take it."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _close_abandoned(opened: _Opened) -> None:
    if opened.content is None:
        opened.file.close()


def _headers(file: OpenFile, chosen: Selection, *, inline: bool) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", etag_of(file).encode()),
        (b"last-modified", last_modified_of(file).encode()),
        *file_headers(file.name, inline=inline),
    ]
    if chosen.status == 304:
        return headers
    headers.append((b"content-length", b"%d" % chosen.length))
    if chosen.status == 206:
        last = chosen.first + chosen.length - 1
        within = f"bytes {chosen.first}-{last}/{file.size_bytes}"
        headers.append((b"content-range", within.encode()))
    elif chosen.status == 416:
        headers.append((b"content-range", f"bytes */{file.size_bytes}".encode()))
    return headers
