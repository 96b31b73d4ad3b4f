from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.fileserver.serving import FileServer, form, upload_head

TOKEN = "s3cret /+&;\"'"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    server = FileServer(
        tmp_path_factory.mktemp("closed"), env={"MORPHEUS_TOKEN": TOKEN, "MORPHEUS_DOCS": "1"}
    )
    yield server
    assert TOKEN not in server.log
    assert "WARNING" not in server.log
    server.stop()


CLOSED = [
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/upload"),
    ("POST", "/uploads"),
    ("PATCH", "/uploads/a"),
    ("GET", "/download/a/b"),
    ("HEAD", "/download/a/b"),
    ("GET", "/download/a"),
    ("POST", "/cleanup/a"),
    ("GET", "/nothing"),
    ("OPTIONS", "/upload"),
    ("GET", "//"),
    ("GET", "/health/"),
    ("GET", "/ping/../status"),
    ("GET", "/%68ealth/../status"),
]


def test_the_pages_of_a_named_origin_may_ask_first_and_need_the_token_then(
    tmp_path: Path,
) -> None:
    origin = "https://app.example"
    env = {"MORPHEUS_TOKEN": TOKEN, "MORPHEUS_CORS_ORIGINS": f"https://b.example, {origin}/"}
    server = FileServer(tmp_path, env=env)
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    wants = {"Access-Control-Request-Headers": "authorization,content-type"}

    preflight = requests.options(f"{server.url}/jobs", headers={**asks, **wants}, timeout=10)
    foreign = {**asks, "Origin": "https://other.example"}
    refused = requests.options(f"{server.url}/jobs", headers=foreign, timeout=10)
    asked = requests.get(f"{server.url}/status", headers={"Origin": origin}, timeout=10)
    server.stop()

    assert (preflight.status_code, asked.status_code) == (200, 401)
    for answer in (preflight, asked):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_without_the_token_nothing_is_reached(closed: FileServer, method: str, path: str) -> None:
    answer = closed.raw(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"www-authenticate: Bearer" in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic czNjcmV0"},
        {"X-Morpheus-Token": ""},
        {"X-Morpheus-Token": TOKEN[:-1].encode()},
        {"X-Morpheus-Token": (TOKEN + "x").encode()},
        {"Cookie": "morpheus_token="},
        {"Cookie": "other=1; morpheus_tokenx=s3cret"},
    ],
)
def test_a_wrong_token_is_refused(closed: FileServer, headers: dict[str, str]) -> None:
    answer = closed.get("/status", headers=headers)
    assert answer.status_code == 401
    assert "token" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": b"Bearer " + TOKEN.encode()},
        {"Authorization": b"bearer " + TOKEN.encode()},
        {"X-Morpheus-Token": TOKEN.encode()},
        {"Authorization": b"Bearer runpods-own-key", "X-Morpheus-Token": TOKEN.encode()},
    ],
)
def test_the_right_token_opens(closed: FileServer, headers: dict[str, str | bytes]) -> None:
    assert closed.get("/status", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_the_balancers_routes_are_open(closed: FileServer, path: str) -> None:
    assert closed.get(path).status_code in {200, 204}


def test_the_door_is_a_form_and_nothing_else(closed: FileServer) -> None:
    answer = closed.get("/")
    assert answer.status_code == 200
    assert 'name="token"' in answer.text
    assert "status" not in answer.text.lower()
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("by", ["link", "form"])
def test_a_browser_gets_a_session_cookie(closed: FileServer, by: str) -> None:
    browser = requests.Session()
    if by == "link":
        first = browser.get(f"{closed.url}/", params={"token": TOKEN}, allow_redirects=False)
    else:
        first = browser.post(f"{closed.url}/", data={"token": TOKEN}, allow_redirects=False)
    assert first.status_code == 303
    assert first.headers["location"] == "/"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "Secure" not in cookie
    assert browser.get(f"{closed.url}/status").status_code == 200
    assert "Morpheus boot" in browser.get(f"{closed.url}/").text


def test_behind_https_the_cookie_is_secure(closed: FileServer) -> None:
    answer = closed.get(
        "/",
        params={"token": TOKEN},
        headers={"X-Forwarded-Proto": "https"},
        allow_redirects=False,
    )
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("by", ["link", "form", "empty form", "no form", "long form"])
def test_a_wrong_token_at_the_door_is_refused(closed: FileServer, by: str) -> None:
    if by == "link":
        answer = closed.get("/", params={"token": "wrong"})
    else:
        data = {
            "form": {"token": "wrong"},
            "empty form": {"token": ""},
            "no form": None,
            "long form": {"token": "x" * 100_000},
        }[by]
        answer = closed.post("/", data=data)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'name="token"' in answer.text
    assert ("that was another" in answer.text) == (by in {"link", "form"})


def test_a_refused_upload_can_read_why_while_it_still_sends(closed: FileServer) -> None:
    body, headers = form(bytes(30_000_000))
    with closed.connect() as client:
        client.sendall(upload_head(len(body), headers))
        client.sendall(body[:1_000_000])
        assert client.recv(12) == b"HTTP/1.1 401"
        client.sendall(body[1_000_000:])


def test_a_token_behind_the_body_is_none(closed: FileServer) -> None:
    trailer = b"0\r\nX-Morpheus-Token: " + TOKEN.encode() + b"\r\n\r\n"
    answer = closed.raw(
        b"POST /cleanup/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: X-Morpheus-Token\r\n\r\n" + trailer
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
