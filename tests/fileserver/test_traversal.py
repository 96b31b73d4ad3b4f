"""Every trick to leave a job's folder, as bytes on the wire; nothing is found that is not the job's."""

import json

import pytest

from tests.fileserver.serving import FileServer

SECRET = b"the secret outside"


@pytest.fixture(scope="module")
def server(shared: FileServer) -> FileServer:
    """With a secret at each place that a trick would reach."""
    shared.output("job", "inside.txt", b"inside")
    shared.output("other", "secret", SECRET)
    for place in (
        shared.volume / "secret",
        shared.volume / "jobs/secret",
        shared.volume / "jobs/job/secret",
        shared.volume / "model_cache/secret",
        shared.root / "secret",
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(SECRET)
    return shared


UPS = [
    b"..",
    b"%2e%2e",
    b"%2E%2e",
    b".%2e",
    b"%252e%252e",
    b"%25252e%25252e",
    b"..%00",
    b"..;",
    b"..%3b",
    b"..%20",
    b"..%09",
    b"%c0%ae%c0%ae",
    b"%e0%80%ae%e0%80%ae",
    b"%f0%80%80%ae%f0%80%80%ae",
    b"%uff0e%uff0e",
    b"%ef%bc%8e%ef%bc%8e",
    b"%e2%80%a5",
    b"....",
    b"...",
    b".%2e%2f..",
    b"%2e%2e%5c",
]
SLASHES = [
    b"/",
    b"%2f",
    b"%2F",
    b"%252f",
    b"\\",
    b"%5c",
    b"%255c",
    b"//",
    b"/./",
    b"%c0%af",
    b"%e0%80%af",
    b"%ef%bc%8f",
    b"%e2%88%95",
    b";/",
    b"/%00/",
    b"%00/",
]


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("slash", SLASHES)
def test_no_way_up_leads_out(server: FileServer, up: bytes, slash: bytes) -> None:
    for ups in (1, 2, 3):
        target = b"/download/job/" + (up + slash) * ups + b"secret"
        status, body = server.raw_get(target)
        assert status in {400, 404, 422}, target
        assert SECRET not in body
        assert json.loads(body)["detail"]


@pytest.mark.parametrize(
    "target",
    [
        b"/download/job//etc/passwd",
        b"/download/job/%2fetc%2fpasswd",
        b"/download/job//secret",
        b"/download//job/inside.txt",
        b"/download/job/./inside.txt",
        b"/download/job/inside.txt/",
        b"/download/job/inside.txt/.",
        b"/download/job/inside.txt%00",
        b"/download/job/inside.txt%00.png",
        b"/download/job/inside.txt%20",
        b"/download/job/INSIDE.TXT",
        b"/download/JOB/inside.txt",
        b"/download/job/x/../inside.txt",
        b"/download/job/C:\\secret",
        b"/download/job/file:%2f%2f%2fetc%2fpasswd",
        b"/download/job/..",
        b"/download/job/.",
        b"/download/job/",
        b"/download/.",
        b"/download/..",
        b"/download/../secret",
        b"/download/%2e%2e/secret",
        b"/download/..%2f..%2f/secret",
        b"/download/job%2f..%2fother/secret",
        b"/download/job/../../other/output/secret",
        b"/download/checkpoints/secret",
        b"/download/job%00/inside.txt",
        b"/download/secret",
        b"/download/job/%ff%fe",
        b"/download/job/" + b"a/" * 200 + b"x",
        b"/download/job/" + b"a" * 300,
        b"/download",
        b"/download/",
        b"/../secret",
        b"/%2e%2e/secret",
        b"/jobs/job/output/inside.txt",
        b"/upload/../../secret",
        b"//download/job/inside.txt",
        b"http://x/../secret",
        b"/download/job/;/inside.txt",
        b"/download/job/?/inside.txt",
        b"/download/job/%%32%65%%32%65/secret",
    ],
)
def test_nothing_but_the_jobs_own_files_is_found(server: FileServer, target: bytes) -> None:
    status, body = server.raw_get(target)
    assert status in {400, 404, 422}
    assert json.loads(body)["detail"]
    assert SECRET not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "target",
    [
        b"/download/job/inside.txt",
        b"/download/job/inside%2etxt",
        b"/download/%6aob/%69nside.txt",
        b"/download/job/inside.txt?inline=1&x=../..",
        b"http://x/download/job/inside.txt",
    ],
)
def test_the_jobs_own_file_is_found_in_every_spelling_of_its_name(
    server: FileServer, target: bytes
) -> None:
    assert server.raw_get(target) == (200, b"inside")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request_is_refused_and_closed(server: FileServer, request_bytes: bytes) -> None:
    answer = server.raw(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
    assert server.get("/health").status_code == 200
