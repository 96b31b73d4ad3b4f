"""A package index on loopback: PEP 503 pages, generated wheels, pip's own, and answers made to order."""

import base64
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

SAMPLE_PAGE: Final = "/simple/morpheus-sample/"
SAMPLE_WHEEL: Final = "morpheus_sample-1.0-py3-none-any.whl"


def wheel(name: str, version: str, requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """The file name of a wheel with one module, whose VERSION is its version, and its bytes: at each call the same."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    needs += "".join(f"Provides-Extra: {extra}\n" for extra in re.findall("extra == '(.*)'", needs))
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    return f"{name}-{version}-py3-none-any.whl", zipped(files)


def zipped(files: Mapping[str, str]) -> bytes:
    """An archive of ``files``, at each call the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def sample_wheel() -> bytes:
    """That of the module ``morpheus_sample``."""
    return wheel("morpheus_sample", "1.0")[1]


def sample_lock(digest: str = hashlib.sha256(sample_wheel()).hexdigest()) -> str:
    """A lock that names that wheel alone."""
    return f"morpheus-sample==1.0 \\\n    --hash=sha256:{digest}\n"


@dataclass
class PackageIndex:
    """What it serves, by path, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    """Status codes for the next requests, before anything is served."""
    gate: threading.Event = field(default_factory=threading.Event)
    """The sample's page is not answered before this is set; it is, from the start, unless ``hanging`` cleared it."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Each request's path and Authorization header."""

    def add(self, project: str, name: str, content: bytes) -> None:
        """Serves ``content`` as the only file of ``project``."""
        self.files[f"/files/{name}"] = content
        link = f"../../files/{name}#sha256={hashlib.sha256(content).hexdigest()}"
        page = f'<!DOCTYPE html><html><body><a href="{link}">{name}</a></body></html>'
        self.files[f"/simple/{project}/"] = page.encode()

    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.asked]


@contextmanager
def package_index(
    prepare: Callable[[PackageIndex], object] = lambda _: None, host: str = "127.0.0.1"
) -> Iterator[PackageIndex]:
    """An index that serves until the end of the block."""
    index = PackageIndex()
    index.gate.set()
    prepare(index)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append((self.path, self.headers["Authorization"]))
            if self.path == SAMPLE_PAGE:
                index.gate.wait()
            status = index.failures.pop(0) if index.failures else 200
            content = index.files.get(self.path)
            if status == 200 and content is None:
                status = 302 if self.path in index.redirects else 404
            body = content if status == 200 and content is not None else b""
            self.send_response(status)
            if status == 302:
                self.send_header("Location", index.redirects[self.path])
            is_page = self.path.endswith("/")
            self.send_header("Content-Type", "text/html" if is_page else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Says nothing of clients that were killed."""

    with Server((host, 0), Handler) as server:
        index.url = f"http://{host}:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield index
        finally:
            index.gate.set()
            server.shutdown()
            thread.join()


def with_sample(pip_wheel: Path) -> Callable[[PackageIndex], None]:
    """Prepares an index that serves the sample, and pip for a Python that has none."""

    def prepare(index: PackageIndex) -> None:
        index.add("morpheus-sample", SAMPLE_WHEEL, sample_wheel())
        index.add("pip", pip_wheel.name, pip_wheel.read_bytes())

    return prepare


def hanging(pip_wheel: Path) -> Callable[[PackageIndex], None]:
    """Prepares such an index that lets an installer wait for the sample, until its gate is set."""

    def prepare(index: PackageIndex) -> None:
        with_sample(pip_wheel)(index)
        index.gate.clear()

    return prepare
