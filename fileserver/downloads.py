"""``/download/<job>/<file>`` and ``/download/<job>``: a job's outputs, one of them, or all as a zip."""

import io
import logging
import mimetypes
import os
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from fileserver.answers import JobPath, Refused, StreamCut
from fileserver.threads import VolumeThreads
from morpheus_boot.errors import MorpheusError, StorageFailed, storage_error
from morpheus_boot.jobs.files import NoSuchFile, OpenFile, Output, list_outputs, open_output
from morpheus_boot.jobs.names import JobId, OutputPath
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.fileserver")

# A reader that stands still holds two pieces, one on its way to the socket and the next; so much are all together.
_PIECES_BYTES: Final = 6 * 2**20
_LARGEST_PIECE_BYTES: Final = 4 * 2**20
_SMALLEST_PIECE_BYTES: Final = 64 * 2**10
_ZIP_PIECE_BYTES: Final = 256 * 2**10

# Types that a browser may show in place. Not SVG: it is a document that can hold scripts.
_SHOWN: Final = ("image/", "video/", "audio/")
_NEVER_SHOWN: Final = frozenset({"image/svg+xml"})
# What RFC 8187 lets stand for itself.
_PLAIN: Final = "!#$&+-.^_`|~"
# Whatever comes out of a job was made by somebody else's prompt: no sniffing, no scripts, no frames.
_GUARDS: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "cache-control": "private, no-cache",
}
# The system's own table differs from image to image, and may be absent.
_TYPES: Final = mimetypes.MimeTypes()
for _type, _suffix in (
    ("image/webp", ".webp"),
    ("image/avif", ".avif"),
    ("image/jxl", ".jxl"),
    ("video/mp4", ".mp4"),
    ("video/webm", ".webm"),
    ("video/x-matroska", ".mkv"),
    ("audio/flac", ".flac"),
    ("audio/ogg", ".opus"),
    ("audio/mp4", ".m4a"),
):
    _TYPES.add_type(_type, _suffix)
_CONDITIONS: Final = StaticFiles(check_dir=False)


class Downloads:
    """Sends what jobs have made; every read of the volume is a thread's."""

    def __init__(self, layout: Layout, threads: VolumeThreads) -> None:
        self._layout = layout
        self.threads = threads
        self.under_way = 0

    @property
    def piece_bytes(self) -> int:
        """What a download that begins now reads at once."""
        share = _PIECES_BYTES // max(1, self.under_way)
        return max(_SMALLEST_PIECE_BYTES, min(_LARGEST_PIECE_BYTES, share))

    async def file(
        self, request: Request, job: JobId, path: OutputPath, *, inline: bool
    ) -> Response:
        """One output; ``inline`` shows what a browser can show. Raises NoSuchFile, VolumeHangs, StorageFailed."""
        file = await self.threads.run(
            lambda: open_output(self._layout, job, path), abandoned=OpenFile.close
        )
        response = _OutputResponse(self, file, inline=inline)
        if _CONDITIONS.is_not_modified(response.headers, request.headers):
            self.threads.start(file.close, always=True)
            return NotModifiedResponse(response.headers)
        return response

    async def archive(self, request: Request, job: JobId) -> Response:
        """All outputs as they are listed now, in a zip. Raises NoSuchFile, VolumeHangs, StorageFailed."""
        outputs = await self.threads.run(lambda: list_outputs(self._layout, job))
        if not outputs:
            raise NoSuchFile(str(job), "it has no outputs", "see what the job has made")
        headers = file_headers(f"{job}.zip", inline=False)
        if request.method == "HEAD":
            return Response(headers=headers)
        pieces = _zip_pieces(self._layout, job, outputs)
        return _ZipResponse(self.threads, pieces, headers)


class _OutputResponse(FileResponse):
    """Starlette's response, for a file that is open already and read by threads of ours.

    ``_open_file`` and ``_parse_range_header`` are Starlette's own names; the lock file pins its version.
    """

    def __init__(self, downloads: Downloads, file: OpenFile, *, inline: bool) -> None:
        # Another inode, size or mtime is another file: Starlette's own ETag does not tell a replaced one.
        etag = f'"{file.stat.st_ino:x}-{file.stat.st_size:x}-{file.stat.st_mtime_ns:x}"'
        headers = {**file_headers(file.name, inline=inline), "etag": etag}
        super().__init__(file.name, headers=headers, stat_result=file.stat)
        self._downloads = downloads
        self._file = file
        self._at = 0
        self._reading = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._downloads.under_way += 1
        self.chunk_size = self._downloads.piece_bytes
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._downloads.under_way -= 1
            self._downloads.threads.start(self._close, always=True)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[Any]:
        try:
            yield self
        except MorpheusError as error:
            _LOG.warning("%s", error)
            raise StreamCut from error

    async def seek(self, at: int) -> None:
        """Where the next read begins."""
        self._at = at

    async def read(self, size_bytes: int) -> bytearray:
        """Up to ``size_bytes`` from where the last read ended; none at the end. Raises StorageFailed, VolumeHangs."""
        # Made here: what each thread allocates is kept in an arena of its own.
        piece = bytearray(min(size_bytes, self._file.stat.st_size - self._at))
        if piece:
            await self._downloads.threads.run(lambda: self._read_into(piece))
            self._at += len(piece)
        return piece

    def _read_into(self, piece: bytearray) -> None:
        # The client may go meanwhile, and the file must not be closed under the read.
        with self._reading:
            read_into(self._file, self._at, piece)

    def _close(self) -> None:
        with self._reading:
            self._file.close()

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # RFC 9110, 14.2: it is ignored
        except RangeNotSatisfiable as error:
            raise Refused(
                416,
                "Range",
                f"the file has {file_size} bytes",
                "ask for some of them",
                headers={"content-range": f"bytes */{file_size}"},
            ) from error


class _ZipResponse(StreamingResponse):
    """Pieces of a zip, each made by a thread when the last one is sent."""

    def __init__(
        self, threads: VolumeThreads, pieces: Generator[bytes], headers: dict[str, str]
    ) -> None:
        super().__init__(self._stream(), headers=headers)
        self._threads = threads
        self._pieces = pieces
        self._making = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._threads.start(self._close, always=True)

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._threads.run(self._next):
                yield piece
        except MorpheusError as error:
            _LOG.warning("%s", error)
            raise StreamCut from error

    def _next(self) -> bytes:
        with self._making:
            return next(self._pieces, b"")

    def _close(self) -> None:
        with self._making:
            self._pieces.close()


class _Sink(io.RawIOBase):
    """What zipfile writes to, and can't go back in."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: Any, /) -> int:  # noqa: ANN401 - anything with bytes, as io has it
        self._pieces.append(bytes(piece))
        return len(self._pieces[-1])

    def take(self) -> bytes:
        """What came since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _zip_pieces(layout: Layout, job: JobId, outputs: Sequence[Output]) -> Generator[bytes]:
    """A zip of what is still there of ``outputs``, stored. Raises StorageFailed."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for output in outputs:
            try:
                file = open_output(layout, job, output.path)
            except NoSuchFile:
                continue  # removed since it was listed
            try:
                with archive.open(_member(output), "w", force_zip64=True) as member:
                    at = 0
                    while at < file.stat.st_size:
                        piece = bytearray(min(_ZIP_PIECE_BYTES, file.stat.st_size - at))
                        read_into(file, at, piece)
                        at += member.write(piece)
                        yield sink.take()
            finally:
                file.close()
    yield sink.take()


def _member(output: Output) -> zipfile.ZipInfo:
    # Windows takes a backslash for a separator, so that a name could lead out of the folder it is unpacked to.
    name = str(output.path).replace("\\", "_")
    # DOS time: from 1980 on; here UTC.
    when = time.gmtime(max(315532800, min(output.mtime_ns // 10**9, 4354819198)))
    member = zipfile.ZipInfo(name, when[:6])
    member.external_attr = 0o100644 << 16
    return member


def read_into(file: OpenFile, at: int, piece: bytearray) -> None:
    """Fills ``piece`` with what ``file`` holds from ``at`` on.

    Raises StorageFailed, also where the file ends before: it was longer when it was opened.
    """
    try:
        got = os.preadv(file.fd, [piece], at)
    except OSError as error:
        raise storage_error(file.name, Path(file.name), error) from error
    if got < len(piece):
        raise StorageFailed(file.name, "it became shorter while it was sent", "download it again")


def file_headers(name: str, *, inline: bool) -> dict[str, str]:
    """Type, disposition and guards for a file called ``name``; ``inline`` holds for pictures, video and sound."""
    kind, encoding = _TYPES.guess_type(name, strict=True)
    if kind is None or encoding is not None:
        kind = "application/octet-stream"
    shown = inline and kind.startswith(_SHOWN) and kind not in _NEVER_SHOWN
    return {
        "content-type": kind,
        "content-disposition": disposition("inline" if shown else "attachment", name),
        **_GUARDS,
    }


def disposition(kind: str, name: str) -> str:
    """Content-Disposition for any name (RFC 6266): ASCII for all, and RFC 8187 where that is not the name."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name)
    value = f'{kind}; filename="{plain}"'
    if plain != name:
        value += f"; filename*=UTF-8''{quote(name.encode(errors='replace'), safe=_PLAIN)}"
    return value


class _AnyPath(PathConvertor):
    """A path whose names may hold line breaks, as Linux lets them."""

    regex = "(?s:.*)"


register_url_convertor("any_path", _AnyPath())


def add_download_routes(app: FastAPI, downloads: Downloads) -> None:
    """Adds ``/download``: one output, or all of them."""

    @app.head("/download/{job}", response_class=Response)
    @app.get("/download/{job}", response_class=Response)
    async def all_outputs(request: Request, job: JobPath) -> Response:
        """All of the job's outputs as a zip."""
        return await downloads.archive(request, JobId(job))

    partly: dict[int | str, dict[str, Any]] = {
        206: {"description": "The range asked for"},
        304: {"description": "It has not changed"},
    }

    @app.head("/download/{job}/{path:any_path}", response_class=Response, responses=partly)
    @app.get("/download/{job}/{path:any_path}", response_class=Response, responses=partly)
    async def output(
        request: Request, job: JobPath, path: str, *, inline: bool = False
    ) -> Response:
        """One of the job's outputs."""
        return await downloads.file(request, JobId(job), OutputPath.parse(path), inline=inline)
