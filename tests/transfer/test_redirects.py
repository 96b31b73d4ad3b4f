"""Where redirects may lead, and what goes with them."""

from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.addresses import is_forbidden
from morpheus_boot.cache.origins.http import check_redirect
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginUnavailable
from morpheus_boot.manifest import HuggingFaceSource
from tests.cache.worker import Worker, hub_model, model
from tests.testbed.content import Content
from tests.testbed.faults import Redirect
from tests.testbed.hub import HubStandIn
from tests.testbed.origin import Origin
from tests.transfer.scene import PATH, RIGHT, WEIGHTS, parallel_worker


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return parallel_worker(tmp_path)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "169.254.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "metadata.google.internal",
        "METADATA.google.internal.",
    ],
)
def test_no_redirect_leads_to_where_credentials_are_handed_out(host: str) -> None:
    assert is_forbidden(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "192.0.2.1", "nowhere.invalid"])
def test_other_hosts_are_left_to_the_request_itself(host: str) -> None:
    assert not is_forbidden(host)


@pytest.mark.parametrize(
    ("url", "target", "line"),
    [
        ("https://a.example/m", "http://a.example/m", "not encrypted"),
        ("https://a.example/m", "file:///etc/passwd", "redirects to 'file:"),
        ("https://a.example/m", "ftp://a.example/m", "redirects to 'ftp:"),
        ("https://a.example/m", "https:///m", "redirects to"),
        ("http://a.example/m", "http://[::ffff:169.254.169.254]/m", "own network"),
    ],
)
def test_a_redirect_that_must_not_be_followed_is_named(url: str, target: str, line: str) -> None:
    with pytest.raises(OriginUnavailable, match=line):
        check_redirect(url, target, "the model")


def test_a_redirect_to_a_stranger_is_followed_without_what_was_meant_for_the_origin(
    worker: Worker, origin: Origin
) -> None:
    origin.serve("/a", b"")
    origin.serve("/b", WEIGHTS)
    origin.misbehave("/a", Redirect(f"{origin.other_url}/b?X-Amz-Signature=s3cret"))

    worker.fill(model(PATH, f"{origin.url}/a?token=t0ken-t0ken"))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    assert not [s for s in origin.seen("/b") if "t0ken" in s.query or "cookie" in s.headers]
    written = worker.layout.record(PATH).read_text()
    assert "s3cret" not in written
    assert "t0ken" not in written


@pytest.mark.parametrize(
    ("host", "token"),
    [
        ("civitai.com", "civitai-token"),
        ("civitai.red", "civitai-token"),
        ("civitai.green", "civitai-token"),
        ("www.civitai.red", "civitai-token"),
        ("hub.example", "hf-token"),
        ("huggingface.co", None),
        ("civitai.com.example", None),
        ("nothub.example", None),
    ],
)
def test_a_url_of_a_service_s_own_host_gets_its_token_and_no_other(
    worker: Worker, origin: Origin, monkeypatch: pytest.MonkeyPatch, host: str, token: str | None
) -> None:
    # The origin is the proxy that all these hosts are reached through.
    monkeypatch.setenv("http_proxy", origin.url)
    origin.serve(f"http://{host}/a", WEIGHTS)
    credentials = Credentials(Secret("hf-token"), "http://hub.example", Secret("civitai-token"))
    trusted = replace(worker, options=replace(worker.options, credentials=credentials))

    trusted.fill(model(PATH, f"http://{host}/a"))

    asked = {s.headers.get("authorization") for s in origin.seen()}
    assert asked == {None if token is None else f"Bearer {token}"}


def test_hugging_face_is_asked_once_for_all_spans_of_a_file(
    worker: Worker, hub: HubStandIn
) -> None:
    source = HuggingFaceSource("owner/repo", "a.safetensors")
    path = hub.add(source.repo, source.file, WEIGHTS)

    worker.with_hub(hub.url).fill(hub_model(PATH, source))

    assert worker.layout.model(PATH).read_bytes() == RIGHT
    assert hub.origin.count(path).requests > 4
    assert [s.method for s in hub.origin.seen() if "/resolve/" in s.path] == ["HEAD"]


def test_a_file_that_hugging_face_gives_through_xet_alone_is_one_clear_line(
    tmp_path: Path, hub: HubStandIn
) -> None:
    source = HuggingFaceSource("owner/repo", "huge.safetensors")
    path = hub.add(source.repo, source.file, WEIGHTS, xet=True)
    huge = Content(50_000_000_001)
    file = hub._repositories[source.repo].snapshots[hub.commit(source.repo)][source.file]
    object.__setattr__(file, "content", huge)

    with pytest.raises(OriginUnavailable, match="through Xet alone; name a smaller file"):
        Worker(tmp_path).with_hub(hub.url).fill(hub_model(PATH, source))

    assert hub.origin.count(path).requests == 0
