"""The file server as the boot starts it: a process of its own on a free port, over a volume of the test's."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import requests

from tests.wait import wait_until

MIB = 2**20
# What the file server may take at its peak; coverage's own tables are none of it.
MOST_RSS_BYTES = 100_000_000 + (10_000_000 if "COVERAGE_PROCESS_CONFIG" in os.environ else 0)
COMMAND = [sys.executable, "-m", "fileserver"]
REPOSITORY = Path(__file__).parents[2]


class FileServer:
    """Up from construction to ``stop``; ``log`` is what it wrote to stderr."""

    def __init__(
        self,
        root: Path,
        *,
        volume: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """``root`` is a fresh folder for its log and local files, and for the volume where none is given."""
        self.root = root
        self.volume = root / "volume" if volume is None else Path(volume)
        if volume is None:
            self.volume.mkdir(exist_ok=True)
        self.local_dir = root / "local"
        self.local_dir.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.session = requests.Session()
        self._log_file = root / "fileserver.log"
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(
                    FILESERVER_PORT=str(self.port),
                    MORPHEUS_VOLUME="" if volume == "" else str(self.volume),
                    MORPHEUS_LOCAL_DIR=str(self.local_dir),
                    **(env or {}),
                ),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._is_up, 60)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return requests.get(f"{self.url}/health", timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    def stop(self) -> int:
        """Ends it as the boot does; returns its exit code."""
        self.session.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()

    def kill(self) -> None:
        """Ends it as nobody should."""
        self.session.close()
        self.process.kill()
        self.process.wait(10)

    def get(self, path: str, **given: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=30, **given)

    def post(self, path: str, **given: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=30, **given)

    def upload(self, content: bytes, name: str = "a.bin", **fields: str) -> requests.Response:
        return self.post("/upload", files={"file": (name, content)}, data=fields)

    def output(self, job: str, name: str, content: bytes) -> Path:
        """Puts a file where ComfyUI would have made it."""
        path = self.volume / "jobs" / job / "output" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def input_of(self, job: str) -> Path:
        return self.volume / "jobs" / job / "input"

    @property
    def parts(self) -> list[str]:
        """The parts of uploads on the volume."""
        folder = self.volume / ".morpheus" / "uploads"
        return names_in(folder) if folder.exists() else []

    @property
    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    @property
    def peak_rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    @property
    def descriptors(self) -> int:
        return len(names_in(Path(f"/proc/{self.process.pid}/fd")))

    def connect(self, *, timeout_s: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def raw(self, request: bytes) -> bytes:
        """Sends bytes as they are; returns all that comes until the server closes."""
        with self.connect() as client:
            client.sendall(request)
            return read_to_end(client)

    def raw_get(self, target: bytes) -> tuple[int, bytes]:
        """GET of a target that no client would send; returns status and body."""
        answer = self.raw(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body


def environment(**given: str) -> dict[str, str]:
    """This process's environment without anything of ours but ``given``."""
    ours = ("MORPHEUS_", "FILESERVER_", "COMFYUI_", "PORT")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, **given}


def names_in(folder: Path) -> list[str]:
    """What a folder holds, in order."""
    return sorted(path.name for path in folder.iterdir())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_to_end(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    pieces = []
    while piece := client.recv(262_144):
        pieces.append(piece)
    return b"".join(pieces)


def form(
    content: bytes, name: str = "a.bin", boundary: str = "boundary", **fields: str
) -> tuple[bytes, bytes]:
    """A multipart body, and the headers that go with it but Content-Length."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
    )
    body = b"".join([*parts, content, f"\r\n--{boundary}--\r\n".encode()])
    return body, f"Content-Type: multipart/form-data; boundary={boundary}\r\n".encode()


def upload_head(length: int, headers: bytes) -> bytes:
    """The head of a raw upload."""
    return b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (length, headers)
