"""A tus client as bare as can be: each call is one request."""

import base64
from collections.abc import Mapping

import requests

from tests.fileserver.serving import FileServer

VERSION = {"Tus-Resumable": "1.0.0"}
CONTENT = "application/offset+octet-stream"


def metadata(**given: str) -> str:
    """Upload-Metadata of these."""
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in given.items()
    )


def ask(
    server: FileServer,
    method: str,
    path: str,
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
) -> requests.Response:
    """One request of ours."""
    given = {**VERSION, **(headers or {})}
    url = server.url + path
    return server.session.request(method, url, headers=given, data=body, timeout=30)


def create(server: FileServer, size_bytes: int, filename: str = "a.bin", **fields: str) -> str:
    """Begins an upload; its path."""
    told = {
        "Upload-Length": str(size_bytes),
        "Upload-Metadata": metadata(filename=filename, **fields),
    }
    answer = ask(server, "POST", "/uploads", told)
    assert answer.status_code == 201, answer.text
    return f"/{answer.headers['Location']}"


def patch(server: FileServer, path: str, offset_bytes: int, content: bytes) -> requests.Response:
    """Goes on with an upload."""
    told = {"Upload-Offset": str(offset_bytes), "Content-Type": CONTENT}
    return ask(server, "PATCH", path, told, content)


def patch_head(path: str, offset_bytes: int, length: int) -> bytes:
    """The head of a raw PATCH."""
    return (
        f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset_bytes}\r\n"
        f"Content-Type: {CONTENT}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def offset_of(server: FileServer, path: str) -> int:
    """How many bytes of an upload are durable."""
    answer = ask(server, "HEAD", path)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def files_of(server: FileServer) -> list[str]:
    """What the volume keeps of resumable uploads: the ending of each file."""
    folder = server.volume / ".morpheus" / "tus"
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []
