import gzip
import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.testbed.content import read_all, safetensors
from tests.testbed.faults import (
    Changed,
    Chunked,
    Corrupt,
    Empty,
    Fault,
    Gate,
    Gzip,
    IgnoresIfRange,
    IgnoresRange,
    Late,
    LoginPage,
    NoAnswer,
    NoEtag,
    NoHead,
    NoLength,
    Redirect,
    ResetAt,
    Stalled,
    Status,
    TooMuch,
    Trickling,
    Truncated,
    WeakEtag,
    WrongRange,
    WrongTotal,
)
from tests.testbed.origin import Origin
from tests.testbed.raw import Heard, ask
from tests.wait import wait_until

MODEL = safetensors(600_000)
BYTES = read_all(MODEL)
RANGE = {"Range": "bytes=1000-1999"}


def heard_with(
    origin: Origin, *faults: Fault, headers: dict[str, str] | None = None, timeout_s: float = 10
) -> Heard:
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", *faults)
    return ask(url, headers, timeout_s=timeout_s)


def test_it_ignores_a_range(origin: Origin) -> None:
    heard = heard_with(origin, IgnoresRange(), headers=RANGE)
    assert (heard.status, heard.body, "Content-Range" in heard.headers) == (200, BYTES, False)


def test_it_ignores_if_range(origin: Origin) -> None:
    heard = heard_with(origin, IgnoresIfRange(), headers={**RANGE, "If-Range": '"old"'})
    assert (heard.status, heard.body) == (206, BYTES[1000:2000])


def test_it_has_no_etag_and_then_no_validator_at_all(origin: Origin) -> None:
    heard = heard_with(origin, NoEtag())
    assert ("ETag" in heard.headers, "Last-Modified" in heard.headers) == (False, True)
    assert "Last-Modified" not in heard_with(origin, NoEtag(last_modified=False)).headers


def test_a_weak_etag_validates_no_range(origin: Origin) -> None:
    etag = heard_with(origin, WeakEtag()).headers["ETag"]
    assert etag.startswith('W/"')
    assert ask(f"{origin.url}/m", {**RANGE, "If-Range": etag}).status == 200


def test_it_changes_from_the_second_request_on(origin: Origin) -> None:
    url, other = origin.serve("/m", MODEL), safetensors(600_000, seed=1)
    origin.misbehave("/m", Changed(other), after=1)
    first, second = ask(url), ask(url)
    assert (first.body, second.body) == (BYTES, read_all(other))
    assert first.headers["ETag"] != second.headers["ETag"]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 416, 429, 500, 503])
def test_it_answers_a_status(origin: Origin, status: int) -> None:
    heard = heard_with(origin, Status(status), headers=RANGE)
    assert (heard.status, heard.body) == (status, b"%d\n" % status)


def test_retry_after_has_two_forms(origin: Origin) -> None:
    assert heard_with(origin, Status(429, retry_after_s=7)).headers["Retry-After"] == "7"
    date = heard_with(origin, Status(503, retry_after_s=60, as_date=True)).headers["Retry-After"]
    assert 50 < parsedate_to_datetime(date).timestamp() - time.time() < 70


def test_it_refuses_head_alone(origin: Origin) -> None:
    assert heard_with(origin, NoHead()).status == 200
    assert ask(f"{origin.url}/m", method="HEAD").status == 405


def test_it_redirects_and_can_loop(origin: Origin) -> None:
    heard = heard_with(origin, Redirect("/m", 307))
    assert (heard.status, heard.headers["Location"]) == (307, "/m")


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_it_answers_with_a_login_page(origin: Origin, content_type: str) -> None:
    heard = heard_with(origin, LoginPage(content_type), headers=RANGE)
    assert (heard.status, heard.headers["Content-Type"]) == (200, content_type)
    assert heard.body.startswith(b"<!DOCTYPE html>")


def test_it_answers_with_an_empty_body(origin: Origin) -> None:
    heard = heard_with(origin, Empty(), headers=RANGE)
    assert (heard.status, heard.body, heard.end) == (200, b"", "whole")


def test_it_hangs_up_or_stays_silent_before_any_answer(origin: Origin) -> None:
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", NoAnswer(), times=1)
    origin.misbehave("/m", NoAnswer(silent=True), after=1)
    with pytest.raises(ConnectionResetError):
        ask(url)
    with pytest.raises(TimeoutError):
        ask(url, timeout_s=0.1)


def test_it_answers_another_range_and_says_so_or_not(origin: Origin) -> None:
    open_lie = heard_with(origin, WrongRange(shift_bytes=5), headers=RANGE)
    assert open_lie.headers["Content-Range"] == "bytes 1005-2004/600000"
    assert open_lie.body == BYTES[1005:2005]
    origin.behave()
    hidden = heard_with(origin, WrongRange(shift_bytes=5, hidden=True), headers=RANGE)
    assert hidden.headers["Content-Range"] == "bytes 1000-1999/600000"
    assert (hidden.status, hidden.body) == (206, BYTES[1005:2005])


def test_it_lies_about_the_whole_length(origin: Origin) -> None:
    heard = heard_with(origin, WrongTotal(700_000), headers=RANGE)
    assert heard.headers["Content-Range"] == "bytes 1000-1999/700000"


def test_it_flips_one_byte(origin: Origin) -> None:
    heard = heard_with(origin, Corrupt(at=300_000))
    wrong = [n for n, (a, b) in enumerate(zip(heard.body, BYTES, strict=True)) if a != b]
    assert wrong == [300_000]


def test_it_sends_too_much(origin: Origin) -> None:
    heard = heard_with(origin, TooMuch(extra_bytes=10))
    assert (heard.headers["Content-Length"], heard.body) == ("600010", BYTES + bytes(10))
    origin.behave()
    unbounded = heard_with(origin, NoLength(), TooMuch(extra_bytes=10, declared=False))
    assert unbounded.body == BYTES + bytes(10)


def test_it_compresses_unasked(origin: Origin) -> None:
    heard = heard_with(origin, Gzip(), headers=RANGE)
    assert (heard.status, heard.headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(heard.body) == BYTES


def test_it_sends_chunks_or_until_the_end_without_a_length(origin: Origin) -> None:
    chunked = heard_with(origin, Chunked())
    assert chunked.headers["Transfer-Encoding"] == "chunked"
    origin.behave()
    until_end = heard_with(origin, NoLength())
    assert until_end.headers["Connection"] == "close"
    for heard in (chunked, until_end):
        assert ("Content-Length" in heard.headers, heard.body) == (False, BYTES)


@pytest.mark.parametrize("at", [0, 1, 262_144, 300_000])
@pytest.mark.parametrize(("fault", "end"), [(Truncated, "short"), (ResetAt, "reset")])
def test_it_ends_in_the_middle_with_all_before_delivered(
    origin: Origin, fault: type[Truncated | ResetAt], end: str, at: int
) -> None:
    heard = heard_with(origin, fault(at))
    assert (heard.status, heard.body, heard.end) == (200, BYTES[:at], end)
    assert heard.headers["Content-Length"] == "600000"


def test_it_stalls_for_ever_in_the_middle(origin: Origin) -> None:
    heard = heard_with(origin, Stalled(300_000), timeout_s=0.3)
    assert (heard.body, heard.end) == (BYTES[:300_000], "silent")
    # The client has left: what it held is given back.
    wait_until(lambda: origin.ledger.running == 0)


def test_it_trickles(origin: Origin) -> None:
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", Trickling(bytes_per_s=2000))
    asking = threading.Thread(target=ask, args=(url,))
    asking.start()
    wait_until(lambda: origin.count("/m").body_bytes > 200)
    assert origin.count("/m").body_bytes < 100_000
    origin.close()
    asking.join()


def test_its_first_byte_is_late(origin: Origin) -> None:
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", Late(0.3))
    with pytest.raises(TimeoutError):
        ask(url, timeout_s=0.1)
    assert ask(url).body == BYTES


def test_a_gate_lets_so_many_bytes_through_of_all_bodies_together(origin: Origin) -> None:
    gate = Gate(at=450_000)
    url = origin.serve("/m", MODEL)
    origin.misbehave("/m", gate)
    bodies: list[bytes] = []
    ranges = [{"Range": "bytes=0-299999"}, {"Range": "bytes=300000-"}]
    asking = [
        threading.Thread(target=lambda h=headers: bodies.append(ask(url, h).body))
        for headers in ranges
    ]
    for each in asking:
        each.start()
    gate.wait_reached()
    assert origin.count("/m").body_bytes <= 450_000
    gate.open()
    for each in asking:
        each.join()
    assert sorted(bodies) == sorted([BYTES[:300_000], BYTES[300_000:]])


def test_a_fault_meets_the_requests_that_it_was_set_for(origin: Origin) -> None:
    url = origin.serve("/m", MODEL)
    origin.serve("/other", MODEL)
    origin.misbehave("/m", Status(503), after=1, times=2, methods=("GET",))
    assert ask(url, method="HEAD").status == 200
    assert [ask(url).status for _ in range(5)] == [200, 503, 503, 200, 200]
    origin.misbehave("/", Status(500))
    assert ask(f"{origin.url}/other").status == 500
    origin.behave()
    assert ask(f"{origin.url}/other").status == 200


def test_faults_compose_in_their_order(origin: Origin) -> None:
    heard = heard_with(origin, IgnoresRange(), WeakEtag(), Chunked(), Truncated(10), headers=RANGE)
    assert (heard.status, heard.body, heard.headers["ETag"][:2]) == (200, BYTES[:10], "W/")
