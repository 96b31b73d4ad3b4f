"""Resumable uploads by clients that others wrote: tuspy, and the example of the docs."""

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tusclient.client import TusClient
from tusclient.uploader.uploader import Uploader

from docs.client import morpheus_client
from tests.fileserver.serving import MIB, FileServer
from tests.fileserver.tus import offset_of


class CuttingProxy:
    """Passes connections on to a port, and cuts each of the first ``cuts`` after so many bytes from its client."""

    def __init__(self, port: int, *, cuts: int, after_bytes: int) -> None:
        self._port = port
        self._left = cuts
        self._after_bytes = after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=copy, args=(server, client))
            back.start()
            passed = 0
            while piece := client.recv(65_536):
                server.sendall(piece)
                passed += len(piece)
                if passed > self._after_bytes and self._left > 0:
                    self._left -= 1
                    client.shutdown(socket.SHUT_RDWR)
                    break
            server.shutdown(socket.SHUT_WR)
            back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65_536):
            target.sendall(piece)
    except OSError:
        pass


@pytest.fixture
def cutting(shared: FileServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(shared.port, cuts=3, after_bytes=MIB)
    yield proxy
    proxy.close()


def test_tuspy_uploads_through_a_proxy_that_cuts(
    shared: FileServer, cutting: CuttingProxy, job: str
) -> None:
    content = os.urandom(8 * MIB)
    uploader = TusClient(f"http://127.0.0.1:{cutting.port}/uploads").uploader(
        file_stream=io.BytesIO(content),
        chunk_size=3 * MIB,
        metadata={"filename": "señal 1.png", "worker_job_id": job, "sub_dir": "a"},
        retries=20,
        retry_delay=0.1,
    )
    uploader.upload()
    assert (shared.input_of(job) / "a/señal 1.png").read_bytes() == content


def test_tuspy_goes_on_at_another_server_of_the_volume(
    shared: FileServer, start: Callable[..., FileServer], job: str
) -> None:
    one = start(volume=shared.volume)
    content = os.urandom(5 * MIB)
    told = {"filename": "a.bin", "worker_job_id": job}
    first = TusClient(f"{one.url}/uploads").uploader(
        file_stream=io.BytesIO(content), chunk_size=MIB, metadata=told
    )
    first.upload(stop_at=2 * MIB)
    one.kill()
    path = str(first.url).removeprefix(one.url)
    assert offset_of(shared, path) == 2 * MIB
    Uploader(file_stream=io.BytesIO(content), chunk_size=MIB, url=shared.url + path).upload()
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


def test_the_example_client_sends_a_large_file_in_pieces(
    shared: FileServer,
    cutting: CuttingProxy,
    job: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As 90 MB and 64 MB are to RunPod's proxy, so are these to ours.
    monkeypatch.setattr(morpheus_client, "LARGEST_REQUEST_BYTES", 4 * MIB)
    monkeypatch.setattr(morpheus_client, "PIECE_BYTES", 3 * MIB)
    monkeypatch.setattr(morpheus_client, "POLL_S", 0.1)
    content = os.urandom(8 * MIB)
    (tmp_path / "large.bin").write_bytes(content)
    files = morpheus_client.FileServer(f"http://127.0.0.1:{cutting.port}", None)
    assert files.upload(job, tmp_path / "large.bin") == f"{job}/input/large.bin [output]"
    assert (shared.input_of(job) / "large.bin").read_bytes() == content
