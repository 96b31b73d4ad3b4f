import email.message
import hashlib
import os
import socket
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.downloads import disposition
from tests.fileserver.serving import MIB, FileServer, read_to_end
from tests.wait import wait_until

CONTENT = os.urandom(MIB)


@pytest.fixture
def path(shared: FileServer, job: str) -> str:
    shared.output(job, "a.png", CONTENT)
    return f"/download/{job}/a.png"


def test_a_file_comes_whole_as_an_attachment(shared: FileServer, path: str) -> None:
    answer = shared.get(path)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-length"] == str(MIB)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == 'attachment; filename="a.png"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith(" GMT")


def test_head_says_the_same_without_the_file(shared: FileServer, path: str) -> None:
    whole = shared.get(path).headers
    head = shared.session.head(shared.url + path, timeout=10)
    assert head.status_code == 200
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in whole.items() if k != "date"
    }


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[: 64 * 1024], CONTENT[: 64 * 1024 + 1]])
def test_files_of_every_size_come_whole(shared: FileServer, job: str, content: bytes) -> None:
    shared.output(job, "f", content)
    answer = shared.get(f"/download/{job}/f")
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-99", slice(10, 100)),
        ("bytes=999-", slice(999, None)),
        ("bytes=-1", slice(-1, None)),
        ("bytes=-5000000", slice(0, None)),
        ("bytes=500-5000000", slice(500, None)),
        ("Bytes = 1-2", slice(1, 3)),
    ],
)
def test_a_range_is_206(shared: FileServer, path: str, asked: str, meant: slice) -> None:
    answer = shared.get(path, headers={"Range": asked})
    begin, end, _ = meant.indices(MIB)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{MIB}"
    assert answer.content == CONTENT[begin:end]


@pytest.mark.parametrize("asked", ["bytes=5000000-", "bytes=5000000-6000000", "bytes=-0"])
def test_a_range_outside_the_file_is_416(shared: FileServer, path: str, asked: str) -> None:
    answer = shared.get(path, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{MIB}"
    assert str(MIB) in answer.json()["detail"]


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=5-1",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2-3",
        "items=0-1",
        "bytes",
        "",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0x1-2",
        "bytes=\u0661-2".encode(),
    ],
)
def test_what_is_no_range_is_the_whole_file(shared: FileServer, path: str, asked: str) -> None:
    answer = shared.get(path, headers={"Range": asked})
    assert answer.status_code == 200
    assert len(answer.content) == MIB


def test_several_ranges_come_as_parts(shared: FileServer, path: str) -> None:
    answer = shared.get(path, headers={"Range": "bytes=0-1,5-6"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert CONTENT[5:7] in answer.content


def test_conditions_are_answered_as_rfc_9110_has_them(shared: FileServer, path: str) -> None:
    headers = shared.get(path).headers
    etag, modified = headers["etag"], headers["last-modified"]
    past, future = "Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 01 Jan 2099 00:00:00 GMT"
    table: list[tuple[dict[str, str], int]] = [
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f"W/{etag}"}, 304),
        ({"If-None-Match": f'"x", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": future}, 304),
        ({"If-Modified-Since": past}, 200),
        ({"If-Modified-Since": "nonsense"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": future}, 200),
        ({"Range": "bytes=0-9", "If-Range": etag}, 206),
        ({"Range": "bytes=0-9", "If-Range": modified}, 206),
        ({"Range": "bytes=0-9", "If-Range": '"x"'}, 200),
        ({"Range": "bytes=0-9", "If-Range": f"W/{etag}"}, 200),
        ({"Range": "bytes=0-9", "If-Range": future}, 200),
        ({"Range": "bytes=0-9", "If-None-Match": etag}, 304),
        ({"Range": "bytes=9999999-", "If-Range": '"x"'}, 200),
    ]
    got = [(given, shared.get(path, headers=given)) for given, _ in table]
    assert [(given, answer.status_code) for given, answer in got] == table
    for _, answer in got:
        if answer.status_code == 304:
            assert answer.content == b""
            assert answer.headers["etag"] == etag


def test_another_file_under_the_name_has_another_etag(shared: FileServer, path: str) -> None:
    etag = shared.get(path).headers["etag"]
    file = shared.volume / "jobs" / path.removeprefix("/download/").replace("/", "/output/")
    for change in ("touch", "replace"):
        before = file.stat()
        if change == "touch":
            os.utime(file, ns=(0, before.st_mtime_ns + 1))
        else:
            other = file.with_name("other")
            other.write_bytes(file.read_bytes())
            os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
            other.replace(file)
        changed = shared.get(path).headers["etag"]
        assert changed != etag
        etag = changed


def test_an_old_file_has_its_own_date(shared: FileServer, path: str) -> None:
    file = shared.volume / "jobs" / path.removeprefix("/download/").replace("/", "/output/")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert shared.get(path).headers["last-modified"] == formatdate(1_000_000_000, usegmt=True)


def test_outputs_in_folders_are_reached(shared: FileServer, job: str) -> None:
    shared.output(job, "video/take 1/ñ.mp4", b"film")
    for target in ("video/take%201/%C3%B1.mp4", "video%2Ftake%201%2F%C3%B1.mp4"):
        assert shared.get(f"/download/{job}/{target}").content == b"film"


@pytest.mark.parametrize("target", ["caf%E9.png", "caf%EF%BF%BD.png"])
def test_a_name_that_is_no_utf_8_is_reached_as_it_is_and_as_it_is_shown(
    shared: FileServer, job: str, target: str
) -> None:
    shared.output(job, os.fsdecode(b"caf\xe9.png"), b"pixels")
    assert shared.raw_get(f"/download/{job}/{target}".encode()) == (200, b"pixels")
    assert shared.get(f"/download/{job}").status_code == 200


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("a.png", "image/png", True),
        ("a.JPG", "image/jpeg", True),
        ("a.webp", "image/webp", True),
        ("a.gif", "image/gif", True),
        ("a.mp4", "video/mp4", True),
        ("a.webm", "video/webm", True),
        ("a.flac", "audio/flac", True),
        ("a.svg", "image/svg+xml", False),
        ("a.html", "text/html", False),
        ("a.xml", None, False),
        ("a.json", "application/json", False),
        ("a.txt", "text/plain", False),
        ("a.safetensors", "application/octet-stream", False),
        ("a.png.gz", "application/octet-stream", False),
        ("png", "application/octet-stream", False),
    ],
)
def test_inline_is_for_pictures_video_and_sound_alone(
    shared: FileServer, job: str, name: str, kind: str | None, shown: bool
) -> None:
    shared.output(job, name, b"<script>")
    answer = shared.get(f"/download/{job}/{name}?inline=1")
    assert answer.headers["content-disposition"].startswith("inline" if shown else "attachment")
    assert kind is None or answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("query", ["", "inline=0", "inline=no", "inlin=1", "%ff=%ff"])
def test_without_being_asked_nothing_is_inline(shared: FileServer, job: str, query: str) -> None:
    shared.output(job, "a.png", b"x")
    answer = shared.get(f"/download/{job}/a.png?{query}")
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a b.png", 'attachment; filename="a b.png"'),
        ("ñ.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%C3%B1.png"),
        ('a"b\\c.png', "attachment; filename=\"a_b_c.png\"; filename*=UTF-8''a%22b%5Cc.png"),
        ("100%.png", "attachment; filename=\"100_.png\"; filename*=UTF-8''100%25.png"),
        ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("'*().png", 'attachment; filename="\'*().png"'),
    ],
)
def test_the_name_of_the_download_is_right_for_any_name(
    shared: FileServer, job: str, name: str, header: str
) -> None:
    shared.output(job, name, b"x")
    answer = shared.get(f"/download/{job}/{quote(name)}")
    assert answer.headers["content-disposition"] == header


@given(st.text(min_size=1, max_size=50))
def test_every_name_is_read_back_from_its_header(name: str) -> None:
    header = disposition("attachment", name)
    assert header.isascii()
    assert not set(header) & set("\r\n\0")
    message = email.message.Message()
    message["content-disposition"] = header
    assert message.get_filename() == name.strip() or "%" in header or name != name.strip()


@pytest.mark.parametrize(
    "name", ["missing", "folder", "link", "own-link", "dangling", "fifo", "in-link/f", "file/below"]
)
def test_what_is_no_file_of_the_job_is_404(
    shared: FileServer, job: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "f").write_bytes(b"outside")
    output = shared.output(job, "file", b"x").parent
    (output / "folder").mkdir()
    (output / "link").symlink_to(tmp_path / "f")
    (output / "own-link").symlink_to("file")
    (output / "dangling").symlink_to("nowhere")
    (output / "in-link").symlink_to(tmp_path)
    os.mkfifo(output / "fifo")
    answer = shared.get(f"/download/{job}/{name}")
    assert answer.status_code == 404
    assert name in answer.json()["detail"]


@pytest.mark.parametrize("link", ["job", "output"])
def test_a_job_that_is_a_link_is_404(
    shared: FileServer, job: str, tmp_path: Path, link: str
) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output/f").write_bytes(b"outside")
    folder = shared.volume / "jobs" / job
    if link == "job":
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir(parents=True)
        (folder / "output").symlink_to(tmp_path / "output")
    assert shared.get(f"/download/{job}/f").status_code == 404
    assert shared.get(f"/download/{job}").status_code == 404


def test_only_outputs_are_served(shared: FileServer, job: str) -> None:
    shared.upload(b"x", worker_job_id=job)
    assert shared.get(f"/download/{job}/a.bin").status_code == 404
    assert shared.get(f"/download/{job}/../input/a.bin").status_code == 404


@pytest.mark.parametrize("fate", ["replaced", "removed"])
def test_a_file_that_goes_in_mid_download_is_served_to_its_end(
    shared: FileServer, job: str, fate: str
) -> None:
    file = shared.output(job, "f", CONTENT * 40)
    with shared.get(f"/download/{job}/f", stream=True) as answer:
        first = answer.raw.read(1000)
        if fate == "removed":
            assert shared.post(f"/cleanup/{job}").json()["message"] == "removed"
        else:
            file.with_name("new").write_bytes(b"new")
            file.with_name("new").replace(file)
        rest = answer.raw.read()
    assert first + rest == CONTENT * 40
    after = shared.get(f"/download/{job}/f")
    assert after.status_code == 404 if fate == "removed" else after.content == b"new"


def test_a_file_cut_in_mid_download_ends_short_and_is_seen_to(impatient: FileServer) -> None:
    file = impatient.output("cut", "f", CONTENT * 40)
    with impatient.connect() as client:
        client.sendall(b"GET /download/cut/f HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
        os.truncate(file, MIB)
        assert len(read_to_end(client)) < 39 * MIB
    wait_until(lambda: "became shorter" in impatient.log)
    assert impatient.log.count("WARNING") == 1
    assert "ERROR" not in impatient.log


def test_a_slow_reader_gets_every_byte(shared: FileServer, job: str) -> None:
    content = CONTENT * 40
    shared.output(job, "f", content)
    got = hashlib.sha256()
    with shared.connect() as client:
        client.sendall(
            b"GET /download/%s/f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % job.encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        while piece := client.recv(30_001):
            got.update(piece)
    assert got.hexdigest() == hashlib.sha256(content).hexdigest()


def test_a_client_that_leaves_lets_go_of_the_file(shared: FileServer, job: str) -> None:
    # So large that nobody could read it to its end: it is all holes.
    os.truncate(shared.output(job, "f", b""), 2**40)
    shared.get("/health")
    before = shared.descriptors
    for _ in range(10):
        with shared.connect() as client:
            client.sendall(b"GET /download/%s/f HTTP/1.1\r\nHost: x\r\n\r\n" % job.encode())
            client.recv(100)
    wait_until(lambda: shared.descriptors <= before)


def test_a_reader_that_stops_is_cut_off(impatient: FileServer) -> None:
    impatient.output("j", "f", CONTENT * 60)
    with impatient.connect() as client:
        client.sendall(b"GET /download/j/f HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(100)
        wait_until(lambda: not is_connected(impatient, client))
    assert "ERROR" not in impatient.log


def is_connected(server: FileServer, client: socket.socket) -> bool:
    """Whether the server still holds its end: the kernel's table has it, and a descriptor of it."""
    port = f":{client.getsockname()[1]:04X}"
    table = Path("/proc/net/tcp").read_text().splitlines()
    return any(port in line.split()[2] and line.split()[3] == "01" for line in table)
