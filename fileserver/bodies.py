"""Bodies of requests as they arrive: all of one, a file's bytes alone, or a multipart form that holds them."""

import asyncio
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final
from urllib.parse import unquote

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from fileserver.answers import Refused, TooSlow
from morpheus_boot.config.variables import Limits
from morpheus_boot.jobs.names import FileName, JobId, SubDir

_FILE: Final = "file"
_JOB: Final = "worker_job_id"
_SUB_DIR: Final = "sub_dir"
_MOST_PARTS: Final = 32
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
# RFC 5987: a character set, a language, and the text in %XX.
_EXTENDED_NAME: Final = re.compile(
    r"""filename\*\s*=\s*([\w.-]+)'[^']*'([^;\s"]+)""", re.IGNORECASE
)


class FileBody:
    """A body that is nothing but a file's bytes; ``chunks`` holds those that were not taken yet."""

    def __init__(self) -> None:
        self.chunks: list[memoryview] = []
        self.chunks_bytes = 0
        self.size_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Takes the next piece of the body."""
        self._add(memoryview(piece))

    def take_chunks(self) -> list[memoryview]:
        """What came of the file since the last call."""
        taken, self.chunks, self.chunks_bytes = self.chunks, [], 0
        return taken

    def _add(self, chunk: memoryview) -> None:
        if chunk:
            self.chunks.append(chunk)
            self.chunks_bytes += len(chunk)
            self.size_bytes += len(chunk)


class UploadForm(FileBody):
    """A multipart form with one file (RFC 7578)."""

    def __init__(self, content_type: str, form_bytes: int) -> None:
        """``form_bytes`` limits everything but the file's content. Raises Refused."""
        super().__init__()
        self.file_name: FileName | None = None
        self.job: JobId | None = None
        self.sub_dir = SubDir()
        self._given: set[str] = set()
        self._left_bytes = form_bytes
        self._parts = 0
        self._name = ""
        self._value = bytearray()
        self._in_file = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._ended = False
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused(
                400,
                "upload",
                "the body is not multipart/form-data",
                "send the file as a form's field",
            )
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _bad(error) from error

    def feed(self, piece: bytes) -> None:
        """Takes the next piece of the body. Raises Refused, InvalidName."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _bad(error) from error

    def finish(self) -> FileName:
        """The file's name, at the end of the body. Raises Refused where that is cut, or has no file."""
        if not self._ended:
            raise Refused(400, "form", "it ends before its last boundary", "send all of it")
        if self.file_name is None:
            raise Refused(
                422, "file", "the form has no such file", "send the file in the field 'file'"
            )
        return self.file_name

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Refused(413, "form", "it has too many fields", f"send up to {_MOST_PARTS}")
        self._disposition = b""
        self._header_name.clear()
        self._header_value.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Refused(400, "form", "a part has no name", "name each field")
        name = decode(options[b"name"])
        if name in self._given:
            raise Refused(422, name, "it is given twice", "send one file an upload")
        if name in {_FILE, _JOB, _SUB_DIR}:
            self._given.add(name)
        self._in_file, self._name = name == _FILE, name
        if self._in_file:
            file_name = _extended_name(decode(self._disposition)) or _words(
                decode(options.get(b"filename", b""))
            )
            if not file_name:
                raise Refused(422, name, "it has no filename", "send a file, not a text")
            self.file_name = FileName.from_client(file_name)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._add(memoryview(data)[start:end])
            return
        self._count(end - start)
        if self._name in {_JOB, _SUB_DIR}:
            self._value += data[start:end]

    def _on_part_end(self) -> None:
        value = decode(bytes(self._value))
        if self._name == _JOB and value:
            self.job = JobId(value)
        elif self._name == _SUB_DIR:
            self.sub_dir = SubDir.parse(value)
        self._value.clear()
        self._in_file, self._name = False, ""

    def _on_end(self) -> None:
        self._ended = True

    def _count(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise Refused(413, "form", "its fields are too long", "send only the contract's fields")


async def receive_piece(request: Request, limits: Limits) -> tuple[bytes, bool]:
    """The next piece of a request's body, and whether more comes. Raises TooSlow; ClientDisconnect."""
    try:
        async with asyncio.timeout(limits.body_idle_s):
            message = await request.receive()
    except TimeoutError:
        raise TooSlow(limits.body_idle_s) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def read_body(request: Request, limits: Limits) -> bytes:
    """All of a job's body. Raises Refused; ClientDisconnect."""
    body, more = bytearray(), True
    while more:
        piece, more = await receive_piece(request, limits)
        body += piece
        if max(len(body), announced_bytes(request)) > limits.job_bytes:
            cause = f"it is larger than {limits.job_bytes} bytes"
            raise Refused(413, "job", cause, "upload its pictures with /upload, and name them")
    return bytes(body)


def announced_bytes(request: Request) -> int:
    """The length that a request's head announces; 0 where it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def decode(value: bytes) -> str:
    """Text as clients send it: UTF-8, and from some still Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _extended_name(disposition: str) -> str | None:
    """The file's name where it stands as ``filename*``, which the form's parser leaves out."""
    found = _EXTENDED_NAME.search(_QUOTED.sub('""', disposition))
    try:
        return unquote(found[2], found[1]) if found else None
    except LookupError:  # no such character set
        return None


def _words(name: str) -> str:
    """``name`` as mail programs' encoders spell it (RFC 2047), or as it is."""
    if "=?" not in name:
        return name
    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, LookupError, ValueError):
        return name


def _bad(error: FormParserError) -> Refused:
    return Refused(
        400, "form", f"it is malformed ({error})", "send multipart/form-data of RFC 7578"
    )
