"""Uploads that don't come to their end: the volume is as if they had never been."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.uploads import NameTaken, Target, UploadPart, sweep_parts
from morpheus_boot.volume.layout import Layout
from tests.fileserver.impatient import IMPATIENT
from tests.fileserver.serving import MIB, FileServer, form, names_in, read_to_end, upload_head
from tests.testbed.shim import Shim
from tests.wait import wait_until


def jobs_of(server: FileServer) -> list[str]:
    folder = server.volume / "jobs"
    return names_in(folder) if folder.exists() else []


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_cut_connection_leaves_nothing(shared: FileServer, job: str, how: str) -> None:
    body, headers = form(os.urandom(8 * MIB), worker_job_id=job)
    with shared.connect() as client:
        client.sendall(upload_head(len(body), headers) + body[: 6 * MIB])
        wait_until(lambda: len(shared.parts) == 1)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: shared.parts == [])
    assert job not in jobs_of(shared)


def test_a_body_without_its_end_leaves_nothing(shared: FileServer, job: str) -> None:
    body, headers = form(os.urandom(3 * MIB), worker_job_id=job)
    cut = body[:-10]
    with shared.connect() as client:
        client.sendall(upload_head(len(cut), headers + b"Connection: close\r\n") + cut)
        assert read_to_end(client).startswith(b"HTTP/1.1 400 ")
    assert shared.parts == []
    assert job not in jobs_of(shared)


def test_what_comes_after_the_form_is_not_the_file(shared: FileServer, job: str) -> None:
    body, headers = form(b"content", worker_job_id=job)
    longer = body + b"epilogue"
    with shared.connect() as client:
        client.sendall(upload_head(len(longer), headers + b"Connection: close\r\n") + longer)
        assert read_to_end(client).startswith(b"HTTP/1.1 200 ")
    assert (shared.input_of(job) / "a.bin").read_bytes() == b"content"


def test_a_client_that_stops_is_cut_off_and_leaves_nothing(impatient: FileServer, job: str) -> None:
    body, headers = form(os.urandom(4 * MIB), worker_job_id=job)
    with impatient.connect() as client:
        client.sendall(upload_head(len(body), headers) + body[: 2 * MIB])
        wait_until(lambda: len(impatient.parts) == 1)
        assert client.recv(12) == b"HTTP/1.1 408"
    assert impatient.parts == []
    assert job not in jobs_of(impatient)


def test_a_slow_client_is_waited_for(impatient: FileServer, job: str) -> None:
    content = os.urandom(100_000)
    body, headers = form(content, worker_job_id=job)
    with impatient.connect() as client:
        client.sendall(upload_head(len(body), headers + b"Connection: close\r\n"))
        # Twice the time altogether that nothing may come.
        left = [body[at : at + 10_000] for at in range(0, len(body), 10_000)]
        due = time.monotonic()

        def is_sent() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                client.sendall(left.pop(0))
                due += IMPATIENT.body_idle_s / 5
            return not left

        wait_until(is_sent)
        assert read_to_end(client).startswith(b"HTTP/1.1 200 ")
    assert (impatient.input_of(job) / "a.bin").read_bytes() == content


FULL = [
    ("EDQUOT", at, 507)
    for at in ("create:uploads", "write", "sync:uploads", "close:uploads", "rename", "mkdir:jobs")
]


@pytest.mark.parametrize("refusal", [*FULL, ("ENOSPC", "write", 507), ("EIO", "sync:uploads", 500)])
def test_a_volume_that_is_full_or_fails_is_told_and_no_part_is_left(
    start: Callable[..., FileServer], shim: Shim, tmp_path: Path, refusal: tuple[str, str, int]
) -> None:
    error, at, status = refusal
    root = tmp_path / "full"
    (root / "volume").mkdir(parents=True)
    fault = shim.env(root=root / "volume", match=at, do=f"errno:{error}")
    server = start(root, env=fault)
    answer = server.upload(os.urandom(3 * MIB), worker_job_id="j")
    assert answer.status_code == status
    assert error in answer.json()["detail"]
    assert server.parts == []
    assert not server.input_of("j").exists() or names_in(server.input_of("j")) == []
    warnings = [line for line in server.log.splitlines() if "WARNING" in line]
    assert len([line for line in warnings if "given up" not in line]) == 1


STORE = """
import sys
from pathlib import Path
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.uploads import Target, UploadPart
from morpheus_boot.volume.layout import Layout
part = UploadPart(Layout(Path(sys.argv[1])))
for _ in range(3):
    part.write([memoryview(b"new" * 1000)])
part.settle()
part.publish(Target(JobId("j"), SubDir.parse("s"), FileName("a.bin")))
"""


def test_killed_at_any_step_an_upload_is_whole_or_not_there(shim: Shim, tmp_path: Path) -> None:
    """Each step of storing a file that replaces another, and what the next start makes of it."""

    def store(volume: Path, **fault: object) -> int:
        environment = {**os.environ, **shim.env(root=volume, **fault)}  # type: ignore[arg-type]  # each caller's keywords are env()'s own
        command = [sys.executable, "-c", STORE, str(volume)]
        return subprocess.run(command, env=environment, check=False, timeout=30).returncode

    def prepared(name: str) -> Path:
        final = tmp_path / name / "jobs/j/input/s/a.bin"
        final.parent.mkdir(parents=True)
        final.write_bytes(b"old")
        return tmp_path / name

    assert store(prepared("recorded"), log=tmp_path / "log") == 0
    calls = shim.calls(tmp_path / "log")
    assert {"create", "write", "sync", "rename"} <= {call.op for call in calls}
    for call in calls:
        volume = prepared(str(call.index))
        final = volume / "jobs/j/input/s/a.bin"
        assert store(volume, at=call.index, do="kill-before") == -signal.SIGKILL
        assert final.read_bytes() in {b"old", b"new" * 3000}
        sweep_parts(Layout(volume))
        assert list(final.parent.iterdir()) == [final]
        uploads = volume / ".morpheus/uploads"
        assert not uploads.exists() or list(uploads.iterdir()) == []


def test_killed_amid_many_uploads_nothing_is_torn_and_the_parts_go_at_the_next_start(
    start: Callable[..., FileServer], tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    root.mkdir()
    server = start(root)
    content = os.urandom(2 * MIB)
    with ExitStack() as clients:
        for number in range(30):
            client = clients.enter_context(server.connect())
            body, headers = form(content, f"{number}.bin", worker_job_id="j")
            # Half of them are whole when the server dies, or about to be.
            sent = body if number % 2 else body[: MIB + number * 10_000]
            client.sendall(upload_head(len(body), headers) + sent)
        wait_until(lambda: len(server.parts) >= 15)
        server.kill()
    assert server.parts
    for path in server.input_of("j").iterdir():
        assert path.read_bytes() == content
    again = start(root)
    wait_until(lambda: again.parts == [])
    assert again.upload(content, worker_job_id="j").status_code == 200


def test_another_workers_running_upload_survives_a_start(
    start: Callable[..., FileServer], tmp_path: Path
) -> None:
    first = start()
    content = os.urandom(4 * MIB)
    body, headers = form(content, worker_job_id="j")
    abandoned = first.volume / ".morpheus/uploads" / ("0" * 32 + ".part")
    with first.connect() as client:
        client.sendall(upload_head(len(body), headers + b"Connection: close\r\n") + body[: 3 * MIB])
        wait_until(lambda: len(first.parts) == 1)
        abandoned.write_bytes(b"left by a worker that died")
        second = start(volume=first.volume)
        wait_until(lambda: not abandoned.exists())
        assert len(second.parts) == 1
        client.sendall(body[3 * MIB :])
        assert read_to_end(client).startswith(b"HTTP/1.1 200 ")
    assert (first.input_of("j") / "a.bin").read_bytes() == content


def test_a_part_that_was_swept_by_mistake_fails_and_publishes_nothing(tmp_path: Path) -> None:
    part = UploadPart(Layout(tmp_path))
    part.write([memoryview(b"x")])
    (uploads,) = (tmp_path / ".morpheus/uploads").iterdir()
    uploads.unlink()
    with pytest.raises(NameTaken):
        part.publish(Target(JobId("j"), SubDir(), FileName("a")))
    part.give_up()
    assert list((tmp_path / "jobs/j/input").iterdir()) == []
