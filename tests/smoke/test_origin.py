"""The embedded origin answers as a good origin does, and counts."""

import hashlib

import pytest
import requests

from morpheus_boot.smoke.origin import Origin, Served

_CONTENT = bytes(range(200))


def _get(origin: Origin, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(origin.url("m.bin"), headers=named, timeout=10)


def test_a_whole_file_has_its_length_and_a_strong_etag() -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        answer = _get(origin)

    assert answer.content == _CONTENT
    assert answer.headers["ETag"] == f'"{hashlib.sha256(_CONTENT).hexdigest()}"'
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        ("bytes=0-9", (0, 9)),
        ("bytes=190-", (190, 199)),
        ("bytes=-5", (195, 199)),
        ("bytes=198-900", (198, 199)),
    ],
)
def test_a_range_is_served_with_its_place(wanted: str, span: tuple[int, int]) -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        answer = _get(origin, Range=wanted)

    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {span[0]}-{span[1]}/200"
    assert answer.content == _CONTENT[span[0] : span[1] + 1]


@pytest.mark.parametrize("wanted", ["bytes=200-", "bytes=-", "bytes=9-3", "lines=1-2"])
def test_a_range_of_nothing_is_416(wanted: str) -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        answer = _get(origin, Range=wanted)

    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */200")


def test_a_range_of_another_version_is_the_whole_file() -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        answer = _get(origin, Range="bytes=0-9", If_Range='"older"')

    assert (answer.status_code, answer.content) == (200, _CONTENT)


def test_requests_and_bytes_of_bodies_are_counted() -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        _get(origin)
        _get(origin, Range="bytes=0-9")
        requests.head(origin.url("m.bin"), timeout=10)
        missing = requests.get(origin.url("other"), timeout=10)

    assert missing.status_code == 404
    assert origin.served == Served(requests=4, sent_bytes=210)


def test_a_stopped_origin_takes_no_connection() -> None:
    with Origin({"m.bin": _CONTENT}) as origin:
        origin.stop()

        with pytest.raises(requests.ConnectionError):
            _get(origin)
