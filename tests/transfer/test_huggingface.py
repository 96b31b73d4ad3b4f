"""Hugging Face as an origin: huggingface_hub resolves, our engine moves the bytes, the token goes to the hub alone."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from morpheus_boot.cache.records import read_record
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import HuggingFaceSource
from tests.cache.worker import MIB, Worker, hub_model
from tests.testbed.content import literal, read_all, safetensors, sha256
from tests.testbed.faults import Status
from tests.testbed.hub import READER, STRANGER, Access, HubStandIn

WEIGHTS = safetensors(2 * MIB)
SOURCE = HuggingFaceSource("owner/repo", "sub/m.safetensors")
WANTED = hub_model("loras/m.safetensors", SOURCE)


@pytest.fixture
def worker(tmp_path: Path, hub: HubStandIn) -> Worker:
    return Worker(tmp_path).with_hub(hub.url)


def test_a_file_in_lfs_is_fetched_and_checked_against_its_etag(
    worker: Worker, hub: HubStandIn
) -> None:
    hub.add(SOURCE.repo, SOURCE.file, WEIGHTS)

    (cached,) = worker.fill(WANTED)

    assert cached.file.read_bytes() == read_all(WEIGHTS)
    record = read_record(worker.layout, WANTED.path)
    assert record is not None
    assert record.sha256 == sha256(WEIGHTS)
    assert record.origin == "huggingface:owner/repo/sub/m.safetensors@main"


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_a_file_of_a_dataset_or_a_space_is_fetched(
    worker: Worker, hub: HubStandIn, kind: Literal["dataset", "space"]
) -> None:
    hub.add(f"{kind}s/{SOURCE.repo}", SOURCE.file, WEIGHTS, access=Access.GATED)
    wanted = hub_model("loras/m.safetensors", replace(SOURCE, kind=kind))

    with pytest.raises(OriginDenied, match=f"accept its terms at {hub.url}/{kind}s/owner/repo"):
        worker.fill(wanted)
    (cached,) = worker.with_hub(hub.url, READER).fill(wanted)

    assert cached.file.read_bytes() == read_all(WEIGHTS)


def test_a_small_file_in_git_is_fetched(worker: Worker, hub: HubStandIn) -> None:
    content = literal(b"key: value\n")
    hub.add(SOURCE.repo, "config.yaml", content, lfs=False)

    (cached,) = worker.fill(
        hub_model("configs/c.yaml", HuggingFaceSource(SOURCE.repo, "config.yaml"))
    )

    assert cached.file.read_bytes() == b"key: value\n"


def test_an_etag_as_long_as_a_sha256_is_not_taken_for_one(worker: Worker, hub: HubStandIn) -> None:
    hub.add(SOURCE.repo, SOURCE.file, WEIGHTS, lfs=False, etag=f'"{"x" * 64}"')

    (cached,) = worker.fill(WANTED)

    assert cached.file.read_bytes() == read_all(WEIGHTS)


def test_a_gated_repository_is_fetched_with_the_token_which_storage_never_sees(
    worker: Worker, hub: HubStandIn
) -> None:
    hub.add(SOURCE.repo, SOURCE.file, WEIGHTS, access=Access.GATED)

    worker.with_hub(hub.url, READER).fill(WANTED)

    seen = hub.origin.seen()
    storage = [s for s in seen if s.path.startswith("/cdn/")]
    assert storage
    assert not any("authorization" in s.headers for s in storage)
    assert any(s.headers.get("authorization") == f"Bearer {READER}" for s in seen)


@pytest.mark.parametrize("token", [None, STRANGER])
def test_a_gated_repository_without_access_says_how_to_get_it(
    worker: Worker, hub: HubStandIn, token: str | None
) -> None:
    hub.add(SOURCE.repo, SOURCE.file, WEIGHTS, access=Access.GATED)

    with pytest.raises(OriginDenied, match=r"gated.*accept its terms.*HF_TOKEN"):
        worker.with_hub(hub.url, token).fill(WANTED)


def test_a_missing_or_private_repository_without_a_token_is_denied(worker: Worker) -> None:
    with pytest.raises(OriginDenied, match="does not exist, or is private"):
        worker.fill(WANTED)


def test_a_missing_file_and_a_missing_revision_are_named(worker: Worker, hub: HubStandIn) -> None:
    hub.add(SOURCE.repo, "other.safetensors", WEIGHTS)

    with pytest.raises(OriginUnavailable, match=r"sub/m\.safetensors@main does not exist"):
        worker.fill(WANTED)
    gone = HuggingFaceSource(SOURCE.repo, "other.safetensors", "v9")
    with pytest.raises(OriginUnavailable, match="@v9 does not exist"):
        worker.fill(hub_model("loras/n.safetensors", gone))


def test_a_hub_whose_name_dns_does_not_know_is_named_as_any_origin(tmp_path: Path) -> None:
    worker = Worker(tmp_path).with_hub("http://nowhere.invalid")

    with pytest.raises(OriginUnavailable, match="its name can't be resolved: check DNS"):
        worker.fill(WANTED)


def test_a_hub_that_is_rate_limiting_asks_for_patience(worker: Worker, hub: HubStandIn) -> None:
    hub.origin.misbehave(
        f"/{SOURCE.repo}/resolve/main/{SOURCE.file}", Status(429, retry_after_s=3600)
    )

    with pytest.raises(OriginUnavailable, match="answers 429; try again later"):
        worker.fill(WANTED)


def test_a_hub_that_is_down_is_unavailable(worker: Worker, hub: HubStandIn) -> None:
    hub.origin.close()

    with pytest.raises(OriginUnavailable, match="can't be reached"):
        worker.fill(WANTED)
