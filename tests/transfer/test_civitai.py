"""Civitai as an origin: its API's digest, its storage's bytes, and its refusals named as what they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.records import read_record
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import MorpheusError, OriginDenied, OriginUnavailable
from morpheus_boot.manifest import ModelSpec
from tests.cache.worker import Worker
from tests.testbed.civitai import TOKEN, Access, CivitaiStandIn
from tests.testbed.content import sha256
from tests.testbed.exchange import Request
from tests.testbed.faults import Corrupt, LoginPage, Status
from tests.transfer.scene import OTHER, PATH, RIGHT, WEIGHTS, parallel_worker

ID = 131960
WANTED = ModelSpec(PATH, civitai=ID)

WorkerWith = Callable[[str | None], Worker]


@pytest.fixture
def worker_with(tmp_path: Path, civitai: CivitaiStandIn) -> WorkerWith:
    def made(token: str | None) -> Worker:
        secret = Secret(token) if token else None
        credentials = Credentials(civitai_token=secret, civitai_endpoint=civitai.url)
        worker = parallel_worker(tmp_path)
        return replace(worker, options=replace(worker.options, credentials=credentials))

    return made


def test_a_version_is_fetched_and_checked_against_the_api_s_digest(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    civitai.add(ID, "talmendo.safetensors", WEIGHTS)
    worker = worker_with(None)

    (cached,) = worker.fill(WANTED)

    assert cached.file.read_bytes() == RIGHT
    record = read_record(worker.layout, PATH)
    assert record is not None
    assert (record.origin, record.sha256) == (f"civitai:{ID}", sha256(WEIGHTS))


def test_what_is_as_long_as_a_sha256_is_not_taken_for_one(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    civitai.add(ID, "a.safetensors", WEIGHTS, digest="-" * 64)

    (cached,) = worker_with(None).fill(WANTED)

    assert cached.file.read_bytes() == RIGHT


def test_the_token_goes_to_civitai_and_never_to_its_storage(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    path = civitai.add(ID, "a.safetensors", WEIGHTS, access=Access.LOGIN)

    worker_with(TOKEN).fill(WANTED)

    assert not [s for s in civitai.origin.seen(path) if "authorization" in s.headers]
    asked = [s for s in civitai.origin.seen() if s.path.startswith("/api/")]
    assert {s.headers.get("authorization") for s in asked} == {f"Bearer {TOKEN}"}
    # Signed once, not once for each of the nine spans.
    assert len(civitai.origin.seen(f"/api/download/models/{ID}")) == 1


def test_bytes_that_are_not_what_the_api_says_are_never_published(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    path = civitai.add(ID, "a.safetensors", WEIGHTS)
    civitai.origin.misbehave(path, Corrupt(5000))
    worker = worker_with(None)

    with pytest.raises(OriginUnavailable, match="SHA-256"):
        worker.fill(WANTED)

    assert not worker.layout.model(PATH).exists()


def test_a_signature_that_expires_in_the_middle_is_replaced(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    civitai.storage.valid_requests = 4
    civitai.add(ID, "a.safetensors", WEIGHTS)

    (cached,) = worker_with(None).fill(WANTED)

    assert cached.file.read_bytes() == RIGHT


@pytest.mark.parametrize(
    ("access", "kind", "line"),
    [
        (Access.LOGIN, OriginDenied, "logged in; set CIVITAI_TOKEN"),
        (Access.EARLY, OriginDenied, "is in early access; buy access"),
        (Access.ARCHIVED, OriginUnavailable, "archived or deleted; choose another version"),
    ],
)
def test_a_refusal_is_named(
    worker_with: WorkerWith,
    civitai: CivitaiStandIn,
    access: Access,
    kind: type[MorpheusError],
    line: str,
) -> None:
    civitai.add(ID, "a.safetensors", WEIGHTS, access=access)

    with pytest.raises(kind, match=line):
        worker_with(None).fill(WANTED)


def test_a_version_that_is_deleted_is_named(worker_with: WorkerWith) -> None:
    with pytest.raises(OriginUnavailable, match=f"civitai version {ID} does not exist, or was del"):
        worker_with(None).fill(WANTED)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (LoginPage(), "web page"),
        (Status(200, body="[]", content_type="application/json"), "nonsense"),
        (Status(200, body='{"files": [{}]}', content_type="application/json"), "nonsense"),
        (Status(503), "503"),
    ],
)
def test_an_api_that_answers_nonsense_is_named(
    worker_with: WorkerWith, civitai: CivitaiStandIn, fault: LoginPage | Status, line: str
) -> None:
    civitai.add(ID, "a.safetensors", WEIGHTS)
    civitai.origin.misbehave(f"/api/v1/model-versions/{ID}", fault)

    with pytest.raises(OriginUnavailable, match=line):
        worker_with(None).fill(WANTED)


def test_a_version_that_was_replaced_is_fetched_anew(
    worker_with: WorkerWith, civitai: CivitaiStandIn
) -> None:
    path = civitai.add(ID, "a.safetensors", WEIGHTS)
    civitai.origin.misbehave(path, Status(403), after=4, times=1)

    class Replaced(Status):
        """Civitai has another file by the time that it is asked again."""

        def request(self, request: Request) -> Request:
            civitai.add(ID, "a.safetensors", OTHER)
            return request

    civitai.origin.misbehave(path, Replaced(403), after=4, times=1)

    (cached,) = worker_with(None).fill(WANTED)

    assert cached.file.stat().st_size == OTHER.size_bytes
