import json

import pytest

from tests.testbed.civitai import TOKEN, Access, CivitaiStandIn
from tests.testbed.content import read_all, safetensors, sha256
from tests.testbed.raw import ask

MODEL = safetensors(100_000)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BROWSER = {"User-Agent": "Mozilla/5.0"}


def test_a_version_is_described_with_size_name_and_digest(civitai: CivitaiStandIn) -> None:
    civitai.add(131960, "m.safetensors", MODEL)
    heard = ask(f"{civitai.url}/api/v1/model-versions/131960")
    (file,) = json.loads(heard.body)["files"]
    assert (file["name"], file["sizeKB"] * 1024) == ("m.safetensors", 100_000)
    assert file["hashes"]["SHA256"] == sha256(MODEL).upper()
    assert file["downloadUrl"] == civitai.download_url(131960)


def test_a_download_is_redirected_to_storage_that_refuses_the_token(
    civitai: CivitaiStandIn,
) -> None:
    path = civitai.add(1, "m.safetensors", MODEL)
    heard = ask(civitai.download_url(1))
    assert heard.status == 307
    storage = heard.headers["Location"]
    assert storage.startswith(civitai.origin.other_url)
    assert ask(storage, BEARER).status == 400
    fetched = ask(storage)
    assert fetched.body == read_all(MODEL)
    assert fetched.headers["Content-Disposition"] == 'attachment; filename="m.safetensors"'
    assert civitai.origin.count(path).requests == 2


@pytest.mark.parametrize(
    ("access", "status", "error"),
    [
        (Access.LOGIN, 401, "Unauthorized"),
        (Access.EARLY, 403, "Early Access"),
        (Access.ARCHIVED, 410, "Model archived, not available for download"),
    ],
)
def test_a_program_is_refused_in_json(
    civitai: CivitaiStandIn, access: Access, status: int, error: str
) -> None:
    civitai.add(1, "m.safetensors", MODEL, access=access)
    heard = ask(civitai.download_url(1))
    assert (heard.status, json.loads(heard.body)["error"]) == (status, error)


def test_a_browser_is_sent_to_the_login_page(civitai: CivitaiStandIn) -> None:
    civitai.add(1, "m.safetensors", MODEL, access=Access.LOGIN)
    heard = ask(civitai.download_url(1), BROWSER)
    assert heard.status == 307
    page = ask(civitai.url + heard.headers["Location"])
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html")


def test_a_token_opens_it_in_either_form(civitai: CivitaiStandIn) -> None:
    civitai.add(1, "m.safetensors", MODEL, access=Access.LOGIN)
    url = civitai.download_url(1)
    assert ask(url, BEARER).status == 307
    assert ask(f"{url}?token={TOKEN}").status == 307
    assert ask(f"{url}?token=wrong").status == 401


def test_what_was_deleted_is_404(civitai: CivitaiStandIn) -> None:
    assert ask(civitai.download_url(9)).status == 404
    assert ask(f"{civitai.url}/api/v1/model-versions/9").status == 404
