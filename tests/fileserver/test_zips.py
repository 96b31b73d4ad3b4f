import io
import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fileserver.zip_format import Member, archive_bytes, directory
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
    assert answer.headers["content-length"] == str(len(answer.content))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)
        assert {name: archive.read(name) for name in FILES} == FILES
        assert archive.getinfo("a.png").date_time == (2001, 9, 9, 1, 46, 40)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    if (unzip := shutil.which("unzip")) is not None:
        (tmp_path / "z.zip").write_bytes(answer.content)
        subprocess.run([unzip, "-tq", tmp_path / "z.zip"], check=True)


def test_head_says_how_long_it_will_be(shared: FileServer, job: str) -> None:
    shared.output(job, "a", b"x" * 1000)
    head = shared.session.head(f"{shared.url}/download/{job}", timeout=10)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(shared.get(f"/download/{job}").content))


def test_links_and_odd_names_do_not_lead_out(shared: FileServer, job: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    output = shared.output(job, "..\\..\\evil", b"x").parent
    (output / "link").symlink_to(tmp_path / "secret")
    (output / "folder").symlink_to(tmp_path)
    os.mkfifo(output / "fifo")
    (output / os.fsdecode(b"\xff.png")).write_bytes(b"y")
    answer = shared.get(f"/download/{job}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [".._.._evil", "_udcff.png"]


@pytest.mark.parametrize("made", ["nothing", "input only", "empty output"])
def test_a_job_without_outputs_is_404(shared: FileServer, job: str, made: str) -> None:
    if made == "input only":
        shared.upload(b"x", worker_job_id=job)
    elif made == "empty output":
        shared.output(job, "a", b"").unlink()
    assert shared.get(f"/download/{job}").status_code == 404


def test_a_file_that_vanishes_meanwhile_makes_the_zip_end_short(
    start: Callable[..., FileServer],
) -> None:
    server = start()
    server.output("j", "a", os.urandom(40 * MIB))
    last = server.output("j", "b", b"gone")
    with server.connect() as client:
        client.sendall(b"GET /download/j HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
        last.unlink()
        got = read_to_end(client)
    assert b"PK\x05\x06" not in got[-100:]
    wait_until(lambda: server.log.count("WARNING") == 1)
    assert "ERROR" not in server.log


def test_a_file_that_grows_meanwhile_is_in_it_as_it_was_listed(
    shared: FileServer, job: str
) -> None:
    shared.output(job, "a", os.urandom(40 * MIB))
    grows = shared.output(job, "b", b"before")
    with shared.get(f"/download/{job}", stream=True) as answer:
        first = answer.raw.read(1000)
        with grows.open("ab") as file:
            file.write(b" and after")
        archive = first + answer.raw.read()
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        assert whole.read("b") == b"before"


def test_offsets_and_counts_beyond_32_bits_are_read_back() -> None:
    """The directory alone, of an archive of which nobody has the disk: Python's reader says what it finds."""
    sizes = [5 * 2**32, 3, 2**32 - 1]
    members, offset = [], 0
    for number, size_bytes in enumerate(sizes):
        member = Member(b"%d" % number, size_bytes, 0, offset, zlib.crc32(b""))
        members.append(member)
        offset += member.stored_bytes
    end = directory(members)
    assert archive_bytes(members) == offset + len(end)

    class Sparse(io.RawIOBase):
        """Zeros as far as the directory."""

        at = 0

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.at

        def seek(self, to: int, whence: int = 0) -> int:
            self.at = to + (0, self.at, offset + len(end))[whence]
            return self.at

        def read(self, size_bytes: int = -1) -> bytes:
            begin = self.at - offset
            piece = end[begin:] if size_bytes < 0 else end[begin : begin + size_bytes]
            self.at += len(piece)
            return piece

    with zipfile.ZipFile(Sparse()) as archive:
        assert [info.file_size for info in archive.infolist()] == sizes
        assert [info.header_offset for info in archive.infolist()] == [m.offset for m in members]
