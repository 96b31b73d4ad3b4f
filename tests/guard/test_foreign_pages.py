"""A page of another site can't use its visitor's cookie on either port, nor a port that has no token."""

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest
import requests

from tests.fileserver.serving import FileServer
from tests.guard.served import TOKEN, Served, prepare, serving, variables

HOST = "pod-8188.proxy.runpod.net"
OWN = f"https://{HOST}"
SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}

EVIL = {"Origin": "https://evil.example"}
# Method, headers, whether the door lets it in.
ASKED = [
    ("GET", {**EVIL, "Sec-Fetch-Site": "cross-site"}, True),
    ("HEAD", EVIL, True),
    ("POST", {}, True),
    ("POST", {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
    ("POST", {"Sec-Fetch-Site": "none"}, True),
    ("POST", {"Origin": f"{OWN}:443"}, True),
    ("POST", {"Origin": OWN.upper().replace("HTTPS", "https")}, True),
    ("POST", {"Origin": "http://ours.example", "X-Forwarded-Host": "ours.example"}, True),
    ("POST", {"Origin": "http://ours.example:81", "Host": "ours.example:81"}, True),
    *((method, EVIL, False) for method in ("POST", "PUT", "PATCH", "DELETE")),
    ("POST", {**EVIL, "Sec-Fetch-Site": "same-origin"}, False),
    ("POST", {"Origin": "http://ours.example:82", "Host": "ours.example:81"}, False),
    ("POST", {"Origin": "http://ours.example:x", "Host": "ours.example"}, False),
    *(
        ("POST", {"Origin": origin}, False)
        for origin in (
            *("https://other-8188.proxy.runpod.net", f"{OWN}.evil.example", "null"),
            *(f"https://evil.example/{HOST}", "http://[::1"),
        )
    ),
    *(
        ("POST", {"Origin": OWN, "Sec-Fetch-Site": f"{site}-site"}, False)
        for site in ("same", "cross")
    ),
    ("POST", {"Sec-Fetch-Site": "same-site"}, False),
    ("GET", {**SOCKET, **EVIL}, False),
    ("GET", {**SOCKET, "Upgrade": "WebSocket", "Sec-Fetch-Site": "same-site"}, False),
]


@pytest.fixture(scope="module")
def ports(closed: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Both ports, each with a token and without."""
    root = tmp_path_factory.mktemp("foreign")
    for name in ("open", "files", "open files"):
        (root / name).mkdir()
    prepare(root / "open")
    with ExitStack() as running:
        without = serving(root / "open", variables(root / "open", token=None))
        yield {
            "ComfyUI": closed.url,
            "open ComfyUI": running.enter_context(without).url,
            "files": running.enter_context(
                FileServer(root / "files", env={"MORPHEUS_TOKEN": TOKEN})
            ).url,
            "open files": running.enter_context(FileServer(root / "open files")).url,
        }


@pytest.mark.parametrize("port", ["ComfyUI", "open ComfyUI", "files", "open files"])
@pytest.mark.parametrize(("method", "headers", "enters"), ASKED)
def test_what_changes_something_comes_from_a_page_of_this_host(
    ports: dict[str, str], port: str, method: str, headers: dict[str, str], *, enters: bool
) -> None:
    cookie = {"Cookie": f"morpheus_token={quote(TOKEN, safe='')}"}
    path = "/ws" if "Upgrade" in headers else "/cleanup/j" if "files" in port else "/free"

    answer = requests.request(
        method, ports[port] + path, headers={"Host": HOST, **cookie, **headers}, timeout=10
    )

    assert (answer.status_code != 403) == enters, answer.text
    if not enters:
        assert "Origin" in answer.json()["detail"]


@pytest.mark.parametrize("port", ["ComfyUI", "files"])
def test_a_program_with_the_token_in_a_header_may_be_anywhere(
    ports: dict[str, str], port: str
) -> None:
    path = "/cleanup/j" if port == "files" else "/free"

    def is_refused(**given: str) -> bool:
        headers = {"Host": HOST, **EVIL, **given}
        answer = requests.post(ports[port] + path, json={}, headers=headers, timeout=10)
        return answer.status_code in {401, 403}

    assert not is_refused(**{"X-Morpheus-Token": TOKEN})
    assert not is_refused(Authorization=f"Bearer {TOKEN}")
    assert is_refused(Cookie=f"morpheus_token={quote(TOKEN, safe='')}")
    assert is_refused()


@pytest.mark.parametrize("name", ["a.svg", "a.xml", "a.xhtml", "a.html", "a.png", "a.txt"])
def test_a_document_of_a_job_runs_no_script_as_a_page_of_comfyuis(
    closed: Served, name: str
) -> None:
    for folder in (closed.jobs / "documents" / "output", closed.local / "user" / "default"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    is_document = name not in {"a.png", "a.txt"}

    for path in ("/view", "/api/view", f"/userdata/{name}"):
        answer = closed.get(path, params={"filename": name, "subfolder": "documents/output"})
        if answer.status_code == 404:  # the stand-in has no user data
            continue
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # ComfyUI's /view itself calls a page bytes.
        shown = is_document and "octet-stream" not in answer.headers["Content-Type"]
        assert ("sandbox" in answer.headers.get("Content-Security-Policy", "")) == shown
