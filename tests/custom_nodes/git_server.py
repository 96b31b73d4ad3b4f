"""Git repositories, and a smart HTTP server of them on loopback (git-http-backend(1))."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@a.test",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@a.test",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    ended = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env={**os.environ, **_IDENTITY},
        check=True,
        capture_output=True,
        text=True,
    )
    return ended.stdout.strip()


def commit(repository: Path, files: Mapping[str, str], message: str = "more") -> str:
    """Commits ``files`` to ``repository``, which is made where it is not there; returns the commit."""
    if not repository.exists():
        repository.mkdir(parents=True)
        git(repository, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(repository, "rev-parse", "HEAD")


@dataclass
class GitServer:
    """What it serves, and what it was asked."""

    root: Path
    url: str = ""
    credentials: str | None = None
    """``user:password`` that it wants, by Basic authentication."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Nothing is answered before this is set; it is, from the start."""
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def fetches(self) -> int:
        """How often a commit or a list of refs was asked for."""
        return sum(path.endswith("/git-upload-pack") for path in self.asked)


@contextmanager
def git_server(root: Path) -> Iterator[GitServer]:
    """Serves the repositories below ``root`` until the end of the block."""
    served = GitServer(root)
    served.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            served.asked.append(path)
            served.bodies.append(body)
            served.gate.wait()
            if served.credentials is not None:
                wanted = "Basic " + base64.b64encode(served.credentials.encode()).decode()
                if self.headers["Authorization"] != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            ended = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                check=False,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(served.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "GIT_CONFIG_GLOBAL": os.devnull,
                },
            )
            head, _, content = ended.stdout.partition(b"\r\n\r\n")
            fields = [line.decode().partition(": ") for line in head.split(b"\r\n") if line]
            status = next((value for name, _, value in fields if name == "Status"), "200")
            self.send_response(int(status.split(" ")[0]))
            for name, _, value in fields:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Says nothing of clients that were killed."""

    with Server(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            served.gate.set()
            server.shutdown()
            thread.join()
