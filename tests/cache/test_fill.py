"""A cold cache fills from its origins: whole or absent, checked as it arrives, a record last."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.cache.planner import Action
from morpheus_boot.cache.records import read_record
from morpheus_boot.errors import (
    Exit,
    MorpheusError,
    OriginDenied,
    OriginUnavailable,
    SeveralErrors,
    StorageFailed,
)
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import literal, read_all, safetensors, sha256, torch_pickle, torch_zip
from tests.testbed.faults import (
    Corrupt,
    Empty,
    Gate,
    Gzip,
    IgnoresRange,
    LoginPage,
    NoEtag,
    Redirect,
    ResetAt,
    Status,
    TooMuch,
    Truncated,
    WrongRange,
)
from tests.testbed.origin import Origin

WEIGHTS = safetensors(3 * MIB)
PATH = "checkpoints/a.safetensors"


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def published(worker: Worker, path: str = PATH) -> bytes:
    return worker.layout.model(path).read_bytes()


def test_a_missing_model_is_fetched_once_and_recorded(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)

    (cached,) = worker.fill(model(PATH, url))

    assert cached.file.read_bytes() == read_all(WEIGHTS)
    record = read_record(worker.layout, PATH)
    assert record is not None
    assert (record.sha256, record.size_bytes) == (sha256(WEIGHTS), WEIGHTS.size_bytes)
    assert record.origin == url
    assert origin.count().body_bytes <= WEIGHTS.size_bytes + 1


def test_a_second_fill_of_a_warm_volume_asks_nobody(worker: Worker, origin: Origin) -> None:
    wanted = model(PATH, origin.serve("/a.safetensors", WEIGHTS))
    worker.fill(wanted)
    before = origin.count()

    (cached,) = worker.fill(wanted)

    assert cached.file.read_bytes() == read_all(WEIGHTS)
    assert origin.count() == before


def test_nothing_is_left_beside_the_model_and_its_record(worker: Worker, origin: Origin) -> None:
    worker.fill(model(PATH, origin.serve("/a.safetensors", WEIGHTS)))

    files = {p.relative_to(worker.root).parts[0:2] for p in worker.root.rglob("*") if p.is_file()}
    assert files == {
        ("model_cache", "checkpoints"),
        (".morpheus", "records"),
        (".morpheus", "locks"),
    }


def test_a_token_in_a_url_is_in_no_record(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)

    worker.fill(model(PATH, f"{url}?type=Model&token=s3cret-s3cret"))

    record = worker.layout.record(PATH).read_text()
    assert "s3cret" not in record
    assert "type=Model" in record


def test_a_broken_connection_goes_on_where_it_stopped(worker: Worker, origin: Origin) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", ResetAt(2 * MIB), after=1, times=1)

    worker.fill(model(PATH, url))

    assert published(worker) == read_all(WEIGHTS)
    assert origin.count().body_bytes < WEIGHTS.size_bytes + MIB


def test_an_origin_that_ignores_ranges_is_read_from_the_start(
    worker: Worker, origin: Origin
) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", IgnoresRange())
    origin.misbehave("/a.safetensors", ResetAt(2 * MIB), after=1, times=1)

    worker.fill(model(PATH, url))

    assert published(worker) == read_all(WEIGHTS)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (LoginPage(), "web page"),
        (Status(404), "404"),
        (Status(410), "410"),
        (Status(500), "500"),
        (Gzip(), "gzip"),
        (TooMuch(10, declared=True), "changed"),
        (Truncated(at=MIB), "ended after"),
    ],
)
def test_an_origin_that_sends_no_model_is_named_and_nothing_is_published(
    worker: Worker, origin: Origin, fault: object, said: str
) -> None:
    url = origin.serve("/a.safetensors", WEIGHTS)
    origin.misbehave("/a.safetensors", fault)

    with pytest.raises(OriginUnavailable) as caught:
        worker.fill(model(PATH, url))

    assert PATH in str(caught.value)
    assert said in str(caught.value)
    assert not worker.layout.model(PATH).exists()
    assert caught.value.exit_code == Exit.UNAVAILABLE
