"""The volume is unmounted while the server runs: nothing is stored on the bare mount point."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.fileserver.serving import FileServer, names_in
from tests.fileserver.tus import create, offset_of, patch
from tests.testbed.mounts import bound, mounted

Change = Callable[[FileServer, str], requests.Response]

CHANGES: list[tuple[str, Change]] = [
    ("an upload", lambda server, _: server.upload(b"x", worker_job_id="j")),
    ("a cleanup", lambda server, _: server.post("/cleanup/j")),
    ("a download", lambda server, _: server.get("/download/j/a.png")),
    ("a zip", lambda server, _: server.get("/download/j")),
    ("a job's status", lambda server, _: server.get("/jobs/j")),
    ("a resumed upload", lambda server, path: patch(server, path, 5, b"67890")),
]


class Volume:
    """A folder on a file system of its own, which comes and goes at ``point``."""

    def __init__(self, folder: Path, point: Path) -> None:
        self._folder = folder
        self.point = point
        self._mount = ExitStack()

    def mount(self) -> None:
        self._mount.enter_context(bound(self._folder, self.point))

    def unmount(self) -> None:
        self._mount.close()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with mounted(tmp_path / "disk", "size=16m") as disk:
        point = tmp_path / "volume"
        point.mkdir()
        found = Volume(disk, point)
        found.mount()
        yield found
        found.unmount()


def test_what_comes_while_the_volume_is_gone_is_refused_and_then_it_goes_on(
    start: Callable[..., FileServer], volume: Volume
) -> None:
    server = start(volume=volume.point)
    server.output("j", "a.png", b"pixels")
    assert server.upload(b"before", worker_job_id="j").status_code == 200
    path = create(server, 10, worker_job_id="j")
    assert patch(server, path, 0, b"12345").status_code == 204

    volume.unmount()
    for what, change in CHANGES:
        answer = change(server, path)
        assert answer.status_code == 503, what
        assert "it is not mounted any more" in answer.json()["detail"]
    assert server.get("/health").status_code == 200
    assert names_in(volume.point) == []

    volume.mount()
    assert server.upload(b"after", "b.bin", worker_job_id="j").status_code == 200
    assert offset_of(server, path) == 5
    assert patch(server, path, 5, b"67890").status_code == 204
    assert server.get("/download/j/a.png").content == b"pixels"


def test_an_upload_that_was_under_way_is_refused(
    start: Callable[..., FileServer], volume: Volume
) -> None:
    server = start(volume=volume.point)
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body += bytes(2_000_000) + b"\r\n--b--\r\n"
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
    with server.connect() as client:
        client.sendall(head % len(body) + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
        client.sendall(body[:1_500_000])
        while not server.parts:
            assert server.get("/health").status_code == 200
        volume.unmount()
        client.sendall(body[1_500_000:])
        assert client.recv(12) == b"HTTP/1.1 503"
    assert names_in(volume.point) == []


def test_another_volume_in_its_place_is_not_written_to(
    start: Callable[..., FileServer], volume: Volume
) -> None:
    server = start(volume=volume.point)
    assert server.upload(b"before").status_code == 200
    volume.unmount()
    (volume.point / ".morpheus").mkdir()
    answer = server.upload(b"after")
    assert answer.status_code == 503
    assert "another one lies at" in answer.json()["detail"]
    assert names_in(volume.point) == [".morpheus"]
