import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fileserver.serving import MIB, FileServer, read_to_end
from tests.wait import wait_until

FILES = {
    "a.png": os.urandom(3 * MIB + 5),
    "empty": b"",
    "sub/deeper/ñ 写.txt": b"text",
    "sub/b.png": os.urandom(1000),
}


def test_all_outputs_come_as_one_zip(shared: FileServer, job: str, tmp_path: Path) -> None:
    for name, content in FILES.items():
        shared.output(job, name, content)
    os.utime(shared.volume / "jobs" / job / "output/a.png", (1_000_000_000, 1_000_000_000))
    answer = shared.get(f"/download/{job}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)
        assert {name: archive.read(name) for name in FILES} == FILES
        assert archive.getinfo("a.png").date_time == (2001, 9, 9, 1, 46, 40)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    if (unzip := shutil.which("unzip")) is not None:
        (tmp_path / "z.zip").write_bytes(answer.content)
        subprocess.run([unzip, "-tq", tmp_path / "z.zip"], check=True)


def test_head_says_what_it_will_be(shared: FileServer, job: str) -> None:
    shared.output(job, "a", b"x" * 1000)
    head = shared.session.head(f"{shared.url}/download/{job}", timeout=10)
    assert head.status_code == 200
    assert head.headers["content-type"] == "application/zip"


def test_links_and_odd_names_do_not_lead_out(shared: FileServer, job: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    output = shared.output(job, "..\\..\\evil", b"x").parent
    (output / "link").symlink_to(tmp_path / "secret")
    (output / "folder").symlink_to(tmp_path)
    os.mkfifo(output / "fifo")
    (output / os.fsdecode(b"\xff.png")).write_bytes(b"y")
    answer = shared.get(f"/download/{job}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [".._.._evil", "\ufffd.png"]


@pytest.mark.parametrize("made", ["nothing", "input only", "empty output"])
def test_a_job_without_outputs_is_404(shared: FileServer, job: str, made: str) -> None:
    if made == "input only":
        shared.upload(b"x", worker_job_id=job)
    elif made == "empty output":
        shared.output(job, "a", b"").unlink()
    assert shared.get(f"/download/{job}").status_code == 404


def test_a_file_that_vanishes_meanwhile_is_left_out(shared: FileServer, job: str) -> None:
    shared.output(job, "a", os.urandom(40 * MIB))
    gone = shared.output(job, "b", b"gone")
    with shared.get(f"/download/{job}", stream=True) as answer:
        pieces = answer.iter_content(MIB)
        first = next(pieces)
        gone.unlink()
        archive = first + b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        assert whole.namelist() == ["a"]


def test_a_file_that_is_cut_meanwhile_makes_the_zip_end_short(
    start: Callable[..., FileServer],
) -> None:
    server = start()
    cut = server.output("j", "a", os.urandom(40 * MIB))
    with server.connect() as client:
        client.sendall(b"GET /download/j HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while b"PK" not in got:
            got += client.recv(1000)
        os.truncate(cut, MIB)
        got += read_to_end(client)
    assert b"PK\x05\x06" not in got[-100:]
    wait_until(lambda: server.log.count("WARNING") == 1)
    assert "ERROR" not in server.log
