import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.certificates import WRONG_NAMES, ServerCertificate
from tests.testbed.content import (
    Content,
    Generated,
    literal,
    read_all,
    safetensors,
    sha256,
    torch_pickle,
    torch_zip,
    write_to,
)
from tests.testbed.faults import Gate
from tests.testbed.origin import Origin
from tests.testbed.raw import ask
from tests.wait import wait_until

MODEL = safetensors(600_000)
BYTES = read_all(MODEL)


def test_a_file_is_served_whole_with_its_validators(origin: Origin) -> None:
    heard = ask(origin.serve("/m", MODEL))
    assert (heard.status, heard.body, heard.end) == (200, BYTES, "whole")
    assert heard.headers["Content-Length"] == "600000"
    assert heard.headers["Accept-Ranges"] == "bytes"
    assert heard.headers["ETag"].startswith('"')
    assert heard.headers["Last-Modified"] == "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.parametrize(
    ("asked", "content_range", "body"),
    [
        ("bytes=0-0", "bytes 0-0/600000", BYTES[:1]),
        ("bytes=300000-", "bytes 300000-599999/600000", BYTES[300_000:]),
        ("bytes=-10", "bytes 599990-599999/600000", BYTES[-10:]),
        ("bytes=599999-9999999", "bytes 599999-599999/600000", BYTES[-1:]),
    ],
)
def test_a_range_is_answered_with_206(
    origin: Origin, asked: str, content_range: str, body: bytes
) -> None:
    heard = ask(origin.serve("/m", MODEL), {"Range": asked})
    assert (heard.status, heard.headers["Content-Range"], heard.body) == (206, content_range, body)


def test_a_range_beyond_the_end_is_416_with_the_size(origin: Origin) -> None:
    heard = ask(origin.serve("/m", MODEL), {"Range": "bytes=600000-"})
    assert (heard.status, heard.headers["Content-Range"]) == (416, "bytes */600000")


def test_if_range_brings_the_range_of_that_version_alone(origin: Origin) -> None:
    url = origin.serve("/m", MODEL)
    headers = ask(url, method="HEAD").headers
    for validator in (headers["ETag"], headers["Last-Modified"]):
        assert ask(url, {"Range": "bytes=5-9", "If-Range": validator}).status == 206
    origin.serve("/m", safetensors(600_000, seed=1))
    assert ask(url, {"Range": "bytes=5-9", "If-Range": headers["ETag"]}).status == 200


def test_head_has_the_headers_of_get_and_no_body(origin: Origin) -> None:
    heard = ask(origin.serve("/m", MODEL), method="HEAD")
    assert (heard.status, heard.headers["Content-Length"], heard.body) == (200, "600000", b"")
    assert origin.count("/m").body_bytes == 0


def test_requests_and_bytes_are_counted_by_path_while_it_runs(origin: Origin) -> None:
    gate = Gate(at=100_000)
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", gate)
    asking = threading.Thread(target=ask, args=(url, {"X-Name": "first"}))
    asking.start()
    gate.wait_reached()
    assert origin.count("/m").body_bytes == 100_000
    assert origin.ledger.running == 1
    gate.open()
    asking.join()
    ask(url + "?again", {"Range": "bytes=0-9"})
    assert (origin.count("/m").requests, origin.count("/m").body_bytes) == (2, 600_010)
    assert origin.count() == origin.count("/m")
    first, second = origin.seen("/m")
    assert first.headers["x-name"] == "first"
    assert (second.query, second.headers["range"], second.status) == ("again", "bytes=0-9", 206)


def test_a_redirect_can_leave_its_host(origin: Origin) -> None:
    origin.serve("/m", MODEL)
    assert ask(f"{origin.other_url}/m").body == BYTES
    assert origin.seen("/m")[0].address == "127.0.0.2"


def test_a_cap_holds_for_each_connection() -> None:
    with Origin(cap_bytes_per_s=2_000_000) as origin:
        url = origin.serve("/m", MODEL)
        begin = time.monotonic()
        assert ask(url).body == BYTES
        # 600 kB at 2 MB/s.
        assert time.monotonic() - begin > 0.25


def test_closing_ends_what_hangs() -> None:
    gate = Gate(at=1)
    with Origin() as origin:
        url = origin.serve("/m", MODEL)
        origin.misbehave("/m", gate)
        ends: list[str] = []
        asking = threading.Thread(target=lambda: ends.append(ask(url).end))
        asking.start()
        gate.wait_reached()
    asking.join()
    assert ends == ["short"]
    with pytest.raises(ConnectionRefusedError):
        ask(url)


def test_tls_is_trusted_with_its_certificate_alone(
    secure_origin: Origin, certificate: ServerCertificate
) -> None:
    url = secure_origin.serve("/m", MODEL)
    trusted = ssl.create_default_context(cafile=str(certificate.certificate))
    assert ask(url, trusted=trusted).body == BYTES
    assert ask(f"{secure_origin.other_url}/m", trusted=trusted).body == BYTES
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(url)


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    wrong = ServerCertificate.below(tmp_path, WRONG_NAMES)
    trusted = ssl.create_default_context(cafile=str(wrong.certificate))
    with Origin(tls=wrong) as origin, pytest.raises(ssl.SSLCertVerificationError):
        ask(origin.serve("/m", MODEL), trusted=trusted)


@pytest.mark.parametrize(
    "content",
    [
        Generated(3_000_000, seed=7, head=b"head", tail=b"tail"),
        safetensors(3_000_000),
        torch_zip(3_000_000),
        torch_pickle(3_000_000),
        literal(b"abc"),
    ],
)
def test_any_part_of_a_content_is_that_part_of_the_whole(content: Content, tmp_path: Path) -> None:
    whole = read_all(content)
    assert len(whole) == content.size_bytes
    for start, stop in ((0, 3), (2, 9), (1_048_570, 1_048_590), (2_999_990, 3_000_000)):
        piece = b"".join(content.pieces(start, min(stop, content.size_bytes)))
        assert piece == whole[start:stop]
    assert write_to(content, tmp_path / "f").read_bytes() == whole


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    write_to(MODEL, tmp_path / "folder" / "m.safetensors")
    command = [sys.executable, "-m", "tests.testbed.origin", "--root", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--generate", "/big=1000000000"], stdout=subprocess.PIPE, text=True
    ) as started:
        yield started
        started.kill()


def test_it_runs_as_a_process_and_ends_with_its_counters(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    assert ask(f"{url}/folder/m.safetensors").body == BYTES
    assert ask(f"{url}/../etc/passwd").status == 404
    assert (
        ask(f"{url}/big", {"Range": "bytes=999999998-"})
        .headers["Content-Range"]
        .endswith("/1000000000")
    )
    path = "/folder/m.safetensors"
    expected = {"requests": 1, "body_bytes": 600_000}
    wait_until(lambda: json.loads(ask(f"{url}/counters").body)["paths"][path] == expected)
    process.send_signal(signal.SIGTERM)
    assert json.loads(process.stdout.readline())["paths"][path] == expected
    assert process.wait(10) == 0


def test_two_versions_differ_and_one_stays_the_same() -> None:
    assert sha256(safetensors(1000)) == sha256(safetensors(1000))
    assert sha256(safetensors(1000)) != sha256(safetensors(1000, seed=1))


def test_bytes_in_another_place_are_other_bytes() -> None:
    content = Generated(1 << 30)
    step = 8 << 20
    blocks = [b"".join(content.pieces(at, at + 4096)) for at in range(0, content.size_bytes, step)]
    assert len(set(blocks)) == 128
