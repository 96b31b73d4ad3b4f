from urllib.parse import urlsplit

import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import HfFileMetadata

from tests.testbed.content import literal, read_all, safetensors, sha256
from tests.testbed.faults import Status
from tests.testbed.hub import READER, STRANGER, Access, HubStandIn
from tests.testbed.raw import ask

MODEL = safetensors(100_000)


def metadata(
    hub: HubStandIn,
    file: str = "m.safetensors",
    *,
    repo: str = "org/name",
    revision: str = "main",
    token: str | None = None,
) -> HfFileMetadata:
    url = hf_hub_url(repo, file, revision=revision, endpoint=hub.url)
    return get_hf_file_metadata(url, token=token or False, endpoint=hub.url)


def test_the_library_finds_size_digest_and_commit(hub: HubStandIn) -> None:
    path = hub.add("org/name", "m.safetensors", MODEL)
    found = metadata(hub)
    assert (found.size, found.etag) == (100_000, sha256(MODEL))
    assert found.commit_hash == hub.commit("org/name")
    assert urlsplit(found.location).netloc == urlsplit(hub.origin.other_url).netloc
    assert ask(found.location).body == read_all(MODEL)
    assert hub.origin.count(path).body_bytes == 100_000


def test_a_commit_stays_what_it_was(hub: HubStandIn) -> None:
    hub.add("org/name", "m.safetensors", MODEL)
    hub.add("org/name", "sub/other.safetensors", MODEL)
    first = hub.commit("org/name")
    hub.add("org/name", "m.safetensors", safetensors(200_000))
    assert metadata(hub).size == 200_000
    assert metadata(hub, revision=first).size == 100_000
    assert metadata(hub, "sub/other.safetensors").size == 100_000


def test_a_file_in_git_is_behind_a_relative_redirect_without_sha256(hub: HubStandIn) -> None:
    hub.add("org/name", "config.json", literal(b'{"a": 1}'), lfs=False)
    found = metadata(hub, "config.json")
    assert (found.size, len(found.etag or ""), found.commit_hash) == (
        8,
        40,
        hub.commit("org/name"),
    )
    assert ask(found.location).body == b'{"a": 1}'


def test_xet_is_announced_beside_the_bridge(hub: HubStandIn) -> None:
    hub.add("org/name", "m.safetensors", MODEL, xet=True)
    found = metadata(hub)
    assert found.xet_file_data is not None
    assert (found.size, found.etag) == (100_000, sha256(MODEL))


@pytest.mark.parametrize(
    ("access", "token", "error", "status"),
    [
        (Access.GATED, None, GatedRepoError, 401),
        (Access.GATED, STRANGER, GatedRepoError, 403),
        (Access.PRIVATE, None, RepositoryNotFoundError, 401),
        (Access.PRIVATE, STRANGER, RepositoryNotFoundError, 404),
        (Access.PUBLIC, "hf_expired", HfHubHTTPError, 401),
    ],
)
def test_the_library_recognises_each_refusal(
    hub: HubStandIn,
    access: Access,
    token: str | None,
    error: type[HfHubHTTPError],
    status: int,
) -> None:
    hub.add("org/name", "m.safetensors", MODEL, access=access)
    with pytest.raises(HfHubHTTPError) as caught:
        metadata(hub, token=token)
    assert (type(caught.value), caught.value.response.status_code) == (error, status)


def test_a_reader_reads_what_is_gated_or_private(hub: HubStandIn) -> None:
    hub.add("org/gated", "m.safetensors", MODEL, access=Access.GATED)
    hub.add("org/private", "m.safetensors", MODEL, access=Access.PRIVATE)
    for repo in ("org/gated", "org/private"):
        assert metadata(hub, repo=repo, token=READER).size == 100_000


def test_what_is_missing_is_named_as_what_it_is(hub: HubStandIn) -> None:
    hub.add("org/name", "m.safetensors", MODEL)
    with pytest.raises(EntryNotFoundError):
        metadata(hub, "other.safetensors")
    with pytest.raises(RevisionNotFoundError):
        metadata(hub, revision="v9")
    with pytest.raises(RepositoryNotFoundError):
        metadata(hub, repo="org/missing")


def test_the_hub_can_misbehave_too(hub: HubStandIn) -> None:
    hub.add("org/name", "m.safetensors", MODEL)
    hub.origin.misbehave("/org/", Status(429, retry_after_s=1))
    with pytest.raises(HfHubHTTPError) as caught:
        metadata(hub)
    assert caught.value.response.status_code == 429


def test_a_signature_expires(hub: HubStandIn) -> None:
    hub.storage.valid_requests = 2
    hub.add("org/name", "m.safetensors", MODEL)
    location = metadata(hub).location
    assert [ask(location).status for _ in range(3)] == [200, 200, 403]
    fresh = metadata(hub).location
    hub.storage.expire()
    assert ask(fresh).status == 403


def test_storage_refuses_a_token_and_a_signature_that_is_not_the_files(hub: HubStandIn) -> None:
    mine = hub.add("org/name", "m.safetensors", MODEL)
    other = hub.add("org/name", "other.safetensors", safetensors(1000))
    location = metadata(hub).location
    assert ask(location, {"Authorization": f"Bearer {READER}"}).status == 400
    assert ask(location[:-1] + "0").status == 403
    assert ask(location.replace(mine, other)).status == 403
