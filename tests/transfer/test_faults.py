"""Every way in which an origin misbehaves: the right file, or one clear line; in bounded time, nothing wrong kept."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from morpheus_boot.errors import Exit, MorpheusError, OriginUnavailable
from tests.cache.worker import Worker, model
from tests.testbed.certificates import WRONG_NAMES, ServerCertificate
from tests.testbed.content import read_all, sha256
from tests.testbed.exchange import Reply, Request, Resource, resource_of
from tests.testbed.faults import (
    Changed,
    Chunked,
    Corrupt,
    Empty,
    Fault,
    Gzip,
    IgnoresIfRange,
    IgnoresRange,
    LoginPage,
    NoAnswer,
    NoEtag,
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
from tests.testbed.storage import SignedStorage
from tests.transfer.scene import KIB, OTHER, PATH, RIGHT, WEIGHTS, parallel_worker

BOUND_S: Final = 12.0


@dataclass(frozen=True, slots=True)
class Case:
    """Faults, from the ``after``-th request on for ``times``, and the line that names them (None: the right file)."""

    faults: tuple[Fault, ...]
    line: str | None = None
    code: Exit = Exit.UNAVAILABLE
    after: int = 0
    times: int | None = None
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Cuts(Fault):
    """Answers no more of a range than so many bytes, and says so."""

    most_bytes: int

    def request(self, request: Request) -> Request:
        first, _, last = request.headers.get("range", "").removeprefix("bytes=").partition("-")
        if not last:
            return request
        cut = min(int(last), int(first) + self.most_bytes - 1)
        return replace(request, headers={**request.headers, "range": f"bytes={first}-{cut}"})


CASES: Final = {
    "cuts ranges": Case((Cuts(60_000),)),
    "no length, and trickles once": Case(
        (IgnoresRange(), NoLength(), Trickling(1000.0)), after=1, times=1
    ),
    "ignores Range": Case((IgnoresRange(),)),
    "ignores Range from the third request on": Case((IgnoresRange(),), after=2),
    "ignores Range and resets": Case((IgnoresRange(), ResetAt(600 * KIB)), after=1, times=2),
    "another range": Case((WrongRange(),), "answered another range"),
    "another range that it lies about": Case(
        (WrongRange(hidden=True),), "SHA-256", after=1, times=3, digest=True
    ),
    "another total": Case((WrongTotal(5_000_000),), "changed|416", after=1),
    "truncates now and then": Case((Truncated(100_000),), after=1, times=4),
    "truncates always": Case((Truncated(100_000),), after=1),
    "truncates to nothing": Case((Truncated(0),), "broke off", after=1),
    "resets": Case((ResetAt(100_000),), after=2, times=5),
    "trickles once": Case((Trickling(1000.0),), after=2, times=1),
    "trickles always": Case((Trickling(1000.0),), "next to nothing|broke off|timed out", after=1),
    "stalls once": Case((Stalled(50_000),), after=1, times=2),
    "stalls always": Case((Stalled(0),), "next to nothing|broke off|timed out", after=1),
    "sends too much, and says so": Case((TooMuch(10),), "another range", after=1),
    "sends too much": Case((TooMuch(10, declared=False),)),
    "sends too much and no length": Case((IgnoresRange(), TooMuch(10), NoLength()), "adds up"),
    "gzip": Case((Gzip(),), "gzip"),
    "chunked": Case((Chunked(),)),
    "chunked without ranges": Case((IgnoresRange(), Chunked())),
    "no length": Case((NoLength(),)),
    "no length, no ranges": Case((IgnoresRange(), NoLength())),
    "no ETag": Case((NoEtag(),)),
    "no ETag, and resets": Case((NoEtag(), ResetAt(100_000)), after=2, times=3),
    "no validator": Case((NoEtag(last_modified=False),)),
    "a weak ETag": Case((WeakEtag(),)),
    "a weak ETag, and resets": Case((WeakEtag(), ResetAt(100_000)), after=0, times=3),
    "401": Case((Status(401),), "401", Exit.DENIED),
    "403": Case((Status(403),), "403", Exit.DENIED),
    "404": Case((Status(404),), "404"),
    "410": Case((Status(410),), "410"),
    "416": Case((Status(416),), "416", after=1),
    "429 with seconds": Case((Status(429, retry_after_s=1),), after=3, times=2),
    "429 with a date": Case((Status(429, retry_after_s=1, as_date=True),), after=1, times=1),
    "429 for an hour": Case((Status(429, retry_after_s=3600),), "429.*try again later"),
    "503 with seconds": Case((Status(503, retry_after_s=0),), times=2),
    "503 for an hour, as a date": Case(
        (Status(503, retry_after_s=3600, as_date=True),), "503.*try again later"
    ),
    "500 now and then": Case((Status(500),), after=1, times=5),
    "500": Case((Status(500),), "500.*try again later"),
    "a redirect loop": Case((Redirect("/a"),), "redirects more than"),
    "a redirect to a file": Case((Redirect("file:///etc/passwd"),), "file:///etc/passwd"),
    "a redirect to a metadata address": Case((Redirect("http://169.254.169.254/"),), "169.254"),
    "a login page": Case((LoginPage(),), "web page"),
    "a login page that calls itself a file": Case((LoginPage("application/octet-stream"),), "HTML"),
    "a login page in the middle": Case((LoginPage(),), "web page", after=3),
    "an empty body": Case((Empty(),), "empty"),
    "no answer once": Case((NoAnswer(),), after=2, times=2),
    "silence once": Case((NoAnswer(silent=True),), after=2, times=1),
    "silence": Case((NoAnswer(silent=True),), "does not answer"),
    "a flipped byte": Case((Corrupt(1000),), "SHA-256", after=1, digest=True),
}


@pytest.fixture(params=["http", "https"])
def any_origin(
    request: pytest.FixtureRequest,
    certificate: ServerCertificate,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Origin]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.certificate))
    with Origin(tls=certificate if request.param == "https" else None) as one:
        yield one


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return parallel_worker(tmp_path)


def assert_nothing_is_published(worker: Worker) -> None:
    assert not worker.layout.model(PATH).exists()
    assert not worker.layout.record(PATH).exists()


@pytest.mark.parametrize("name", CASES)
def test_the_right_file_or_one_clear_line(worker: Worker, any_origin: Origin, name: str) -> None:
    case = CASES[name]
    url = any_origin.serve("/a", WEIGHTS)
    any_origin.misbehave("/a", *case.faults, after=case.after, times=case.times)
    wanted = model(PATH, url, sha256=sha256(WEIGHTS) if case.digest else None)

    began = time.monotonic()
    if case.line is None:
        worker.fill(wanted)
        assert worker.layout.model(PATH).read_bytes() == RIGHT
    else:
        with pytest.raises(MorpheusError, match=case.line) as caught:
            worker.fill(wanted)
        assert caught.value.exit_code == case.code
        assert PATH in str(caught.value)
        assert "\n" not in str(caught.value)
        assert_nothing_is_published(worker)
    assert time.monotonic() - began < BOUND_S


def test_an_empty_file_is_named_as_such_and_asked_for_once(
    worker: Worker, any_origin: Origin
) -> None:
    url = any_origin.serve("/a", b"")

    with pytest.raises(OriginUnavailable, match="/a is empty"):
        worker.fill(model(PATH, url))

    assert any_origin.count().requests == 1


def test_an_origin_that_changes_in_the_middle_is_begun_anew(
    worker: Worker, any_origin: Origin
) -> None:
    url = any_origin.serve("/a", WEIGHTS)
    any_origin.misbehave("/a", Changed(OTHER), after=4)

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == read_all(OTHER)


@pytest.mark.parametrize("validator", ["etag", "last_modified_s"])
def test_two_versions_of_one_length_are_told_apart_though_if_range_is_ignored(
    worker: Worker, origin: Origin, validator: str
) -> None:
    old, new = (resource_of(replace(WEIGHTS, seed=seed), etag=f'"{seed}"') for seed in (0, 1))
    if validator == "last_modified_s":
        old, new = replace(old, etag=None), replace(new, etag=None, last_modified_s=1.8e9)
    url = origin.serve("/a", old)

    class ChangedTo(Fault):
        def resource(self, resource: Resource) -> Resource:
            return new

    origin.misbehave("/a", ChangedTo(), IgnoresIfRange(), after=4)

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == read_all(new.content)


def test_a_signed_url_that_expires_is_resolved_again(worker: Worker, any_origin: Origin) -> None:
    storage = SignedStorage(any_origin, "/signed/", valid_requests=3)
    path = storage.put("a", resource_of(WEIGHTS))

    class Signs(Fault):
        def reply(self, request: Request, reply: Reply) -> Reply:
            return Redirect(storage.sign(path)).reply(request, reply)

    url = any_origin.serve("/a", b"")
    any_origin.misbehave("/a", Signs())

    worker.fill(model(PATH, url))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    assert any_origin.count(path).requests > 3


def test_a_certificate_for_another_host_is_named(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = ServerCertificate.below(tmp_path / "wrong", WRONG_NAMES)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(wrong.certificate))
    with Origin(tls=wrong) as origin, pytest.raises(MorpheusError, match="certificate") as caught:
        worker.fill(model(PATH, origin.serve("/a", WEIGHTS)))

    assert (caught.value.exit_code, caught.value.subject) == (Exit.UNAVAILABLE, PATH)


def test_a_certificate_that_nobody_vouches_for_is_named(
    worker: Worker, secure_origin: Origin
) -> None:
    with pytest.raises(MorpheusError, match="certificate verify failed"):
        worker.fill(model(PATH, secure_origin.serve("/a", WEIGHTS)))


def test_a_name_that_dns_does_not_know_is_named(worker: Worker) -> None:
    with pytest.raises(MorpheusError, match="DNS") as caught:
        worker.fill(model(PATH, "http://nowhere.invalid/a"))

    assert caught.value.exit_code == Exit.UNAVAILABLE
