"""Resumable uploads that are cut, killed, refused room or forgotten: what was told durable is, and no more."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morpheus_boot.cache.garbage import find_garbage
from morpheus_boot.cache.manifests import Roots
from morpheus_boot.errors import VolumeFull
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.resumable import NoSuchUpload, UploadId, UploadPlan, UploadStore
from morpheus_boot.jobs.uploads import Target
from morpheus_boot.volume.layout import Layout
from tests.fileserver.serving import MIB, FileServer, names_in, read_to_end
from tests.fileserver.tus import ask, create, files_of, offset_of, patch, patch_head
from tests.testbed.shim import Shim
from tests.wait import wait_until

DAY_S = 86_400
TARGET = Target(JobId("j"), SubDir(), FileName("a"))


def part_of(server: FileServer, path: str) -> Path:
    return server.volume / ".morpheus/tus" / f"{path.rpartition('/')[2]}.part"


def journal_of(server: FileServer, path: str) -> Path:
    return part_of(server, path).with_suffix(".journal")


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_cut_connection_keeps_what_arrived(shared: FileServer, job: str, how: str) -> None:
    content = os.urandom(5 * MIB)
    path = create(shared, len(content), worker_job_id=job)
    with shared.connect() as client:
        client.sendall(patch_head(path, 0, len(content)) + content[: 3 * MIB])
        wait_until(lambda: part_of(shared, path).stat().st_size >= 2 * MIB)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: offset_of(shared, path) >= 2 * MIB)
    at = offset_of(shared, path)
    assert how == "reset" or at == 3 * MIB
    assert wait_until(lambda: patch(shared, path, at, content[at:])).status_code == 204
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


def test_a_client_that_stops_is_cut_off_and_what_it_sent_stays(
    impatient: FileServer, job: str
) -> None:
    content = os.urandom(4 * MIB)
    path = create(impatient, len(content), worker_job_id=job)
    with impatient.connect() as client:
        client.sendall(patch_head(path, 0, len(content)) + content[: 2 * MIB])
        assert client.recv(12) == b"HTTP/1.1 408"
    at = offset_of(impatient, path)
    assert at == 2 * MIB
    assert patch(impatient, path, at, content[at:]).status_code == 204
    assert (impatient.input_of(job) / "a.bin").read_bytes() == content


def test_while_one_request_writes_no_other_does_on_any_server(
    shared: FileServer, start: Callable[..., FileServer], job: str
) -> None:
    one = start(volume=shared.volume)
    content = os.urandom(4 * MIB)
    path = create(one, len(content), worker_job_id=job)
    with one.connect() as client:
        head = patch_head(path, 0, len(content)).replace(
            b"Host: x", b"Host: x\r\nConnection: close"
        )
        client.sendall(head + content[: 3 * MIB])
        wait_until(lambda: part_of(one, path).stat().st_size >= 2 * MIB)
        for server in (one, shared):
            assert patch(server, path, 0, content).status_code == 423
            assert ask(server, "DELETE", path).status_code == 423
            assert offset_of(server, path) == 0
        client.sendall(content[3 * MIB :])
        assert read_to_end(client).startswith(b"HTTP/1.1 204 ")
    assert (one.input_of(job) / "a.bin").read_bytes() == content
    assert offset_of(shared, path) == len(content)
    # One server is enough for the next test, too: it ends in the middle of a request.
    path = create(one, 8 * MIB, worker_job_id=job)
    with one.connect() as client:
        client.sendall(patch_head(path, 0, 8 * MIB) + bytes(3 * MIB))
        wait_until(lambda: part_of(one, path).stat().st_size >= 2 * MIB)
        assert one.stop() == 0
    assert offset_of(shared, path) == 3 * MIB


def test_killed_amid_a_request_another_server_goes_on_from_what_was_durable(
    shared: FileServer, start: Callable[..., FileServer], job: str
) -> None:
    one = start(volume=shared.volume)
    content = os.urandom(40 * MIB)
    path = create(one, len(content), worker_job_id=job)
    assert patch(one, path, 0, content[:MIB]).status_code == 204
    with one.connect() as client:
        client.sendall(patch_head(path, MIB, len(content) - MIB) + content[MIB : 36 * MIB])
        # Without any end of a request: two of the steps in between are enough to be sure of one.
        wait_until(lambda: offset_of(one, path) > 16 * MIB, 30)
        one.kill()
    at = offset_of(shared, path)
    assert at > 16 * MIB
    # What lies behind was never told durable, and may be anything.
    with part_of(one, path).open("r+b") as part:
        part.seek(at)
        part.write(os.urandom(len(content) - at))
    for begin in range(at, len(content), 16 * MIB):
        piece = content[begin : begin + 16 * MIB]
        assert patch(shared, path, begin, piece).status_code == 204
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


# Two requests' worth; says what a client was told.
STORE = """
import sys
from pathlib import Path
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.resumable import UploadPlan, UploadStore
from morpheus_boot.jobs.uploads import Target
from morpheus_boot.volume.layout import Layout
store = UploadStore(Layout(Path(sys.argv[1])), 86_400)
where = Target(JobId("j"), SubDir.parse("s"), FileName("a.bin"))
upload = store.create(UploadPlan(6000, where, "")).id
print(upload, 0, flush=True)
for at in (0, 3000):
    part = store.open(upload).part
    part.write([memoryview(bytes([at // 3000]) * 1500)])
    part.write([memoryview(bytes([at // 3000]) * 1500)])
    if at == 0:
        part.give_up()
    else:
        part.publish(where)
    print(upload, at + 3000, flush=True)
"""
STORED = b"".join(bytes([number]) * 3000 for number in range(2))


def test_killed_or_refused_at_any_step_what_was_told_holds_and_the_rest_can_follow(
    shim: Shim, tmp_path: Path
) -> None:
    """Each call on the volume, of an upload in two requests that replaces a file."""

    def store(volume: Path, **fault: object) -> tuple[int, list[str]]:
        environment = {**os.environ, **shim.env(root=volume, **fault)}  # type: ignore[arg-type]  # each caller's keywords are env()'s own
        command = [sys.executable, "-c", STORE, str(volume)]
        done = subprocess.run(
            command, env=environment, check=False, timeout=30, capture_output=True, text=True
        )
        return done.returncode, done.stdout.splitlines()

    def prepared(name: str) -> Path:
        final = tmp_path / name / "jobs/j/input/s/a.bin"
        final.parent.mkdir(parents=True)
        final.write_bytes(b"old")
        return tmp_path / name

    def check(index: int, deed: str) -> None:
        volume = prepared(f"{index}-{deed}")
        final = volume / "jobs/j/input/s/a.bin"
        code, told = store(volume, at=index, do=deed)
        assert deed != "kill-before" or code == -signal.SIGKILL
        assert final.read_bytes() in {b"old", STORED}
        uploads = UploadStore(Layout(volume), DAY_S)
        if told:
            upload, offset = told[-1].split()
            finish(uploads, UploadId(upload), int(offset))
            assert final.read_bytes() == STORED
        UploadStore(Layout(volume), -60).sweep()
        assert names_in(final.parent) == ["a.bin"]
        assert not (folder := volume / ".morpheus/tus").exists() or names_in(folder) == []

    def finish(uploads: UploadStore, upload: UploadId, told: int) -> None:
        found = uploads.find(upload)
        assert told <= found.offset_bytes
        part = uploads.open(upload).part
        assert (part is None) == found.is_complete == (found.offset_bytes == 6000)
        if part is not None:
            part.write([memoryview(STORED)[found.offset_bytes :]])
            part.publish(found.plan.target)
        assert uploads.find(upload).is_complete

    code, told = store(prepared("recorded"), log=tmp_path / "log")
    assert (code, told[-1].split()[1]) == (0, "6000")
    calls = shim.calls(tmp_path / "log")
    assert {"create", "flock", "write", "sync", "truncate", "rename"} <= {c.op for c in calls}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda call: check(call.index, "kill-before"), calls))
        refusing = [call for call in calls if call.op not in {"flock", "open", "truncate"}]
        list(pool.map(lambda call: check(call.index, "errno:EDQUOT"), refusing))


END = """
import sys
from pathlib import Path
from morpheus_boot.jobs.resumable import UploadId, UploadStore
from morpheus_boot.volume.layout import Layout
UploadStore(Layout(Path(sys.argv[1])), 86_400).remove(UploadId(sys.argv[2]))
"""


def test_killed_amid_its_end_an_upload_is_never_taken_for_complete(
    shim: Shim, tmp_path: Path
) -> None:
    uploads = UploadStore(Layout(tmp_path), DAY_S)
    upload = uploads.create(UploadPlan(9, TARGET, "")).id
    fault = shim.env(root=tmp_path, match="unlink", since=2, do="kill-before")
    command = [sys.executable, "-c", END, str(tmp_path), upload.text]
    done = subprocess.run(command, env={**os.environ, **fault}, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(NoSuchUpload):
        uploads.find(upload)
    assert uploads.sweep() == 1


def test_what_one_fsync_refused_never_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = UploadStore(Layout(tmp_path), DAY_S)
    upload = uploads.create(UploadPlan(9, TARGET, "")).id
    opened = uploads.open(upload)
    assert opened.part is not None
    opened.part.write([memoryview(b"abc")])

    def refuse(_fd: int) -> None:
        raise OSError(errno.EDQUOT, "full")

    with monkeypatch.context() as full:
        full.setattr(os, "fdatasync", refuse)
        with pytest.raises(VolumeFull):
            opened.part.settle()
    # The kernel tells of lost bytes once: the next fsync would succeed.
    with pytest.raises(VolumeFull):
        opened.part.give_up()
    assert uploads.find(upload).offset_bytes == 0


def test_on_a_full_volume_it_is_507_and_goes_on_once_there_is_room(
    shared: FileServer, start: Callable[..., FileServer], shim: Shim, job: str
) -> None:
    content = os.urandom(3 * MIB)
    # Its first fsyncs are of the journal at its creation, of the part in the first request, and of the journal again.
    fault = shim.env(root=shared.volume, match="sync:tus", since=4, do="errno:EDQUOT")
    full = start(volume=shared.volume, env=fault)
    path = create(full, len(content), worker_job_id=job)
    assert patch(full, path, 0, content[:MIB]).status_code == 204
    refused = patch(full, path, MIB, content[MIB:])
    assert refused.status_code == 507
    assert "EDQUOT" in refused.json()["detail"]
    assert offset_of(full, path) == MIB
    assert not full.input_of(job).exists()
    files = files_of(full)
    told = {"Upload-Length": "1", "Upload-Metadata": "filename YQ=="}
    assert ask(full, "POST", "/uploads", told).status_code == 507
    assert files_of(full) == files
    assert patch(shared, path, MIB, content[MIB:]).status_code == 204
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


def test_what_nobody_goes_on_with_for_a_day_is_gone_and_swept(
    shared: FileServer, start: Callable[..., FileServer], job: str
) -> None:
    old, complete, young = (create(shared, 2, worker_job_id=job) for _ in range(3))
    patch(shared, old, 0, b"a")
    patch(shared, complete, 0, b"ab")
    for path in (old, complete):
        age(journal_of(shared, path))
        for method in ("HEAD", "GET", "DELETE"):
            assert ask(shared, method, path).status_code == 410
        assert patch(shared, path, 1, b"b").status_code == 410
    age(part_of(shared, young))
    left = shared.volume / ".morpheus/tus" / ("0" * 32 + ".part")
    left.write_bytes(b"of a server that died before it made the journal")
    again = start(volume=shared.volume)
    wait_until(lambda: "removed 3 resumable uploads" in again.log)
    for path in (old, complete):
        assert not part_of(again, path).exists()
        assert not journal_of(again, path).exists()
        assert ask(again, "HEAD", path).status_code == 404
    assert not left.exists()
    assert patch(again, young, 0, b"ab").status_code == 204


def age(file: Path) -> None:
    seen = file.stat()
    os.utime(file, (seen.st_atime, seen.st_mtime - DAY_S - 60))


def test_the_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    uploads = UploadStore(Layout(tmp_path), DAY_S)
    plan = UploadPlan(2, TARGET, "")
    upload = uploads.create(plan).id
    opened = uploads.open(upload)
    forgetful = UploadStore(Layout(tmp_path), -60)
    assert forgetful.sweep() == 0
    assert opened.part is not None
    opened.part.give_up()
    assert forgetful.sweep() == 1
    with pytest.raises(NoSuchUpload):
        uploads.find(upload)


def test_gc_takes_nothing_of_it_for_garbage(tmp_path: Path) -> None:
    uploads = UploadStore(Layout(tmp_path), 30 * DAY_S)
    uploads.create(UploadPlan(2, TARGET, ""))
    for file in (tmp_path / ".morpheus/tus").iterdir():
        os.utime(file, (0, time.time() - 20 * DAY_S))
    assert find_garbage(Roots(Layout(tmp_path), 0.0), ()) == ()
