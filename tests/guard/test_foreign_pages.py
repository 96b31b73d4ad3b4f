"""A page of another site can't use its visitor's cookie on either port, nor a port that has no token."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.fileserver.serving import FileServer
from tests.guard.served import TOKEN, Served, prepare, serving, variables

HOST = "pod-8188.proxy.runpod.net"
OWN = f"https://{HOST}"
SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}

# Method, headers, whether the door lets it in.
ASKED = [
    ("GET", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, True),
    ("HEAD", {"Origin": "https://evil.example"}, True),
    ("GET", {"Sec-Fetch-Site": "cross-site"}, True),
    ("POST", {}, True),
    ("POST", {"Origin": OWN}, True),
    ("POST", {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
    ("POST", {"Sec-Fetch-Site": "none"}, True),
    ("POST", {"Origin": f"{OWN}:443"}, True),
    ("POST", {"Origin": OWN.upper().replace("HTTPS", "https")}, True),
    ("POST", {"Origin": "http://ours.example", "X-Forwarded-Host": "ours.example"}, True),
    ("POST", {"Origin": "http://ours.example:81", "Host": "ours.example:81"}, True),
    ("POST", {"Origin": "https://evil.example"}, False),
    ("POST", {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
    ("POST", {"Origin": "https://other-8188.proxy.runpod.net"}, False),
    ("POST", {"Origin": f"{OWN}.evil.example"}, False),
    ("POST", {"Origin": f"https://evil.example/{HOST}"}, False),
    ("POST", {"Origin": "http://ours.example:82", "Host": "ours.example:81"}, False),
    ("POST", {"Origin": "null"}, False),
    ("POST", {"Origin": "http://[::1"}, False),
    ("POST", {"Origin": "http://ours.example:x", "Host": "ours.example"}, False),
    ("POST", {"Origin": OWN, "Sec-Fetch-Site": "same-site"}, False),
    ("POST", {"Origin": OWN, "Sec-Fetch-Site": "cross-site"}, False),
    ("POST", {"Sec-Fetch-Site": "same-site"}, False),
    ("PATCH", {"Origin": "https://evil.example"}, False),
    ("DELETE", {"Origin": "https://evil.example"}, False),
    ("GET", {**SOCKET, "Origin": "https://evil.example"}, False),
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
    foreign = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    path = "/cleanup/j" if port == "files" else "/free"

    def status(**given: bytes) -> int:
        headers: dict[str, str | bytes] = {"Host": HOST, **foreign}
        headers.update({name.replace("_", "-"): value for name, value in given.items()})
        return requests.post(ports[port] + path, json={}, headers=headers, timeout=10).status_code

    assert status(X_Morpheus_Token=TOKEN.encode()) != 403
    assert status(Authorization=b"Bearer " + TOKEN.encode()) != 403
    assert status(Cookie=b"morpheus_token=" + quote(TOKEN).encode()) == 403
    assert status() == 401


@pytest.mark.parametrize(
    ("name", "sandboxed"),
    [
        ("a.svg", True),
        ("a.xml", True),
        ("a.xhtml", True),
        ("a.html", True),
        ("a.png", False),
        ("a.txt", False),
    ],
)
def test_a_document_of_a_job_runs_no_script_as_a_page_of_comfyuis(
    closed: Served, name: str, *, sandboxed: bool
) -> None:
    folder = closed.jobs / "documents" / "output"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    users = Path(closed.local / "user" / "default")
    users.mkdir(exist_ok=True)
    (users / name).write_bytes(b"<html/>")

    answers = [
        closed.get("/view", params={"filename": name, "subfolder": "documents/output"}),
        closed.get(f"/api/view?filename={name}&subfolder=documents/output"),
        closed.get(f"/userdata/{name}"),
    ]

    for answer in answers:
        if answer.status_code == 404:  # the stand-in has no user data
            continue
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # ComfyUI itself calls a page bytes.
        is_document = "octet-stream" not in answer.headers["Content-Type"]
        said = answer.headers.get("Content-Security-Policy", "")
        assert ("sandbox" in said) == (sandboxed and is_document)
