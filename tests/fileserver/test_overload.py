"""Clients that hold on to what they have, and too many of them: the others go on."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.fileserver.impatient import IMPATIENT
from tests.fileserver.serving import MIB, MOST_RSS_BYTES, FileServer, form, upload_head
from tests.wait import wait_until


def test_where_all_are_at_work_a_new_request_is_503(impatient: FileServer) -> None:
    body, headers = form(os.urandom(MIB))
    with ExitStack() as clients:
        busy = [clients.enter_context(impatient.connect()) for _ in range(IMPATIENT.connections)]
        for client in busy:
            client.sendall(upload_head(len(body), headers) + body[: MIB // 2])

        def is_full() -> bool:
            answer = requests.get(f"{impatient.url}/status", timeout=5)
            return answer.status_code == 503 and "too many" in answer.json()["detail"]

        wait_until(is_full)
        assert requests.get(f"{impatient.url}/health", timeout=5).status_code == 200
    wait_until(lambda: requests.get(f"{impatient.url}/status", timeout=5).status_code == 200)
    wait_until(lambda: impatient.parts == [])


def test_slow_loris_by_two_hundred_while_real_clients_go_on(shared: FileServer, job: str) -> None:
    shared.output(job, "f", os.urandom(2 * MIB))
    body, headers = form(bytes(MIB))
    with ExitStack() as clients:
        for number in range(200):
            client = clients.enter_context(shared.connect())
            head = upload_head(len(body), headers)
            client.sendall(head[:40] if number % 2 else head + body[:500])
        wait_until(lambda: shared.descriptors > 200)
        for number in range(30):
            assert shared.get(f"/download/{job}/f").status_code == 200
            assert shared.upload(bytes(100_000), f"{number}").status_code == 200
    wait_until(lambda: shared.parts == [])
    wait_until(lambda: shared.descriptors < 40)


def test_many_downloads_at_once_fit_in_memory(start: Callable[..., FileServer]) -> None:
    """Readers that stand still hold what the sockets have not taken."""
    server = start()
    os.truncate(server.output("j", "f", b""), 10**9)
    with ExitStack() as clients:
        for _ in range(200):
            client = clients.enter_context(server.connect())
            client.sendall(b"GET /download/j/f HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: server.descriptors > 400, 20)
        assert server.get("/health").status_code == 200
        assert server.peak_rss_bytes < 2 * MOST_RSS_BYTES


def test_many_uploads_at_once_fit_in_memory(shared: FileServer) -> None:
    body, headers = form(bytes(40 * MIB))
    with ExitStack() as clients:
        for _ in range(100):
            client = clients.enter_context(shared.connect())
            client.sendall(upload_head(len(body), headers) + body[:MIB])
        # The first ones may gather a mebibyte before they write, the others have to do with less.
        wait_until(lambda: len(shared.parts) > 90, 20)
        assert shared.get("/health").status_code == 200
        assert shared.peak_rss_bytes < MOST_RSS_BYTES
    wait_until(lambda: shared.parts == [], 20)


def test_a_flood_of_tiny_pieces_fits_in_memory(shared: FileServer, job: str) -> None:
    """A body in chunks of one byte costs its sender more than us."""
    body, headers = form(b"x" * 200_000, worker_job_id=job)
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = (
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    )
    answer = shared.raw(head + headers + b"\r\n" + chunked)
    assert b" 200 OK" in answer
    assert (shared.input_of(job) / "a.bin").stat().st_size == 200_000
    assert shared.peak_rss_bytes < MOST_RSS_BYTES


def test_a_hung_volume_holds_up_nothing_but_itself(
    start: Callable[..., FileServer], tmp_path: Path
) -> None:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("no FUSE here: no volume that hangs")
    from tests.testbed.hung_volume import hung_volume

    root = tmp_path / "hung"
    (root / "volume").mkdir(parents=True)
    with hung_volume(root / "volume"), ExitStack() as clients:
        server = start(root, volume=root / "volume")
        for number in range(300):
            client = clients.enter_context(server.connect())
            if number % 2:
                client.sendall(b"GET /download/j/f HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                client.sendall(b"POST /cleanup/j HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        for _ in range(20):
            for path in ("/health", "/ping", "/status", "/"):
                assert server.get(path).status_code in {200, 204}
        metrics = server.get("/metrics")
        assert "morpheus_volume_answers 0" in metrics.text
        assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) < 180
    wait_until(lambda: server.get("/download/j/f").status_code == 404)
