"""Whoever has no token gets 401 from ComfyUI's port, whatever is asked and however."""

import asyncio
import hashlib
from urllib.parse import quote

import aiohttp
import pytest
import requests

from morpheus_boot.comfyui.guard.door import Door
from tests.guard.served import TOKEN, Served, plain

ASKED = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("POST", "/"),
    ("GET", "//"),
    ("GET", "/index.html"),
    ("GET", "/?token="),
    ("GET", "/?token=wrong"),
    ("POST", "/?token={token}"),
    ("GET", "//?token={token}"),
    ("GET", "/api?token={token}"),
    ("GET", "/system_stats?token={token}"),
    ("GET", "/system_stats"),
    ("GET", "/api/system_stats"),
    ("GET", "//system_stats"),
    ("GET", "/api//system_stats"),
    ("GET", "/%73ystem_stats"),
    ("GET", "/x/../system_stats"),
    ("GET", "http://127.0.0.1/system_stats"),
    ("HEAD", "/object_info"),
    ("GET", "/prompt"),
    ("POST", "/prompt"),
    ("POST", "/api/prompt"),
    ("OPTIONS", "/prompt"),
    ("OPTIONS", "*"),
    ("PUT", "/prompt"),
    ("DELETE", "/userdata/x"),
    ("PATCH", "/internal/logs/subscribe"),
    ("GET", "/internal/logs"),
    ("GET", "/internal/folder_paths"),
    ("GET", "/view?filename=x.png"),
    ("POST", "/upload/image"),
    ("POST", "/interrupt"),
    ("GET", "/ws"),
    ("GET", "/ws?token={token}"),
    ("GET", "/health"),
    ("GET", "/ping"),
    ("GET", "/extensions/core/x.js"),
    ("GET", "/scripts/../../etc/passwd"),
    ("TRACE", "/"),
    ("PROPFIND", "/system_stats"),
]


@pytest.mark.parametrize(("method", "target"), ASKED)
def test_without_the_token_there_is_401_and_nothing_else(
    closed: Served, method: str, target: str
) -> None:
    target = target.format(token=quote(TOKEN, safe=""))

    answer = closed.raw(
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nWWW-Authenticate: Bearer" in head
    assert b"Set-Cookie" not in head
    assert body in {b"", *(_detail(closed),)}


def _detail(closed: Served) -> bytes:
    return requests.get(f"{closed.url}/nothing", timeout=10).content


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": TOKEN.encode()},
        {"Authorization": b"Basic " + TOKEN.encode()},
        {"Authorization": b"Bearer " + TOKEN.encode()[:-1]},
        {"Authorization": b"Bearer " + hashlib.sha256(TOKEN.encode()).hexdigest().encode()},
        {"X-Morpheus-Token": ""},
        {"X-Morpheus-Token": TOKEN.encode() + b"x"},
        {"Cookie": "morpheus_token="},
        {"Cookie": f"other={quote(TOKEN)}"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/system_stats", "/nothing"])
def test_what_is_no_token_does_not_open(
    closed: Served, path: str, headers: dict[str, str | bytes]
) -> None:
    assert requests.get(closed.url + path, headers=headers, timeout=10).status_code == 401


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", None])
def test_the_token_opens(closed: Served, scheme: bytes | None) -> None:
    token = TOKEN.encode()
    headers = {"X-Morpheus-Token": token} if scheme is None else {"Authorization": scheme + token}

    assert requests.get(f"{closed.url}/system_stats", headers=headers, timeout=10).ok


def test_runpods_own_key_beside_the_token_does_not_matter(closed: Served) -> None:
    assert closed.get("/system_stats", headers={"Authorization": "Bearer runpods"}).ok


def test_a_browser_without_the_token_is_shown_a_form_that_opens(closed: Served) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml"}

    shown = requests.get(f"{closed.url}/", headers=browser, timeout=10)
    wrong = requests.get(f"{closed.url}/?token=wrong", headers=browser, timeout=10)

    assert (shown.status_code, wrong.status_code) == (401, 401)
    assert shown.headers["Content-Type"].startswith("text/html")
    assert '<form method="get" action="/">' in shown.text
    assert 'name="token"' in shown.text
    assert "that was another" in wrong.text
    assert "that was another" not in shown.text
    assert "wrong" not in wrong.text  # nothing of what was given


def test_a_program_without_the_token_is_told_both_headers(closed: Served) -> None:
    detail = requests.get(f"{closed.url}/nothing", timeout=10).json()["detail"]

    assert "Authorization: Bearer" in detail
    assert "X-Morpheus-Token" in detail


def test_a_browser_gets_a_session_cookie_and_uses_it(closed: Served) -> None:
    browser = requests.Session()

    first = browser.get(
        f"{closed.url}/", params={"token": TOKEN}, allow_redirects=False, timeout=10
    )

    assert first.status_code == 303
    assert first.headers["location"] == "/"
    assert first.headers["cache-control"] == "no-store"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert "Max-Age" not in cookie
    assert "expires" not in cookie.lower()
    # As the file server's: a host's ports share their cookies.
    assert browser.cookies["morpheus_token"] == quote(TOKEN, safe="")
    assert browser.get(f"{closed.url}/", timeout=10).ok
    assert browser.get(f"{closed.url}/system_stats", timeout=10).ok


def test_behind_https_the_cookie_is_secure(closed: Served) -> None:
    answer = requests.get(
        f"{closed.url}/",
        params={"token": TOKEN},
        headers={"X-Forwarded-Proto": "https"},
        allow_redirects=False,
        timeout=10,
    )

    assert "Secure" in answer.headers["set-cookie"]


def test_the_websocket_opens_with_the_token_alone(closed: Served) -> None:
    async def upgraded(headers: dict[str, str]) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(f"{closed.url}/ws", headers=headers) as socket:
                    await socket.receive_json(timeout=10)
                    return 101
            except aiohttp.WSServerHandshakeError as refusal:
                return refusal.status

    assert asyncio.run(upgraded({})) == 401
    assert asyncio.run(upgraded({"Cookie": "morpheus_token=wrong"})) == 401
    assert asyncio.run(upgraded({"Cookie": f"morpheus_token={quote(TOKEN, safe='')}"})) == 101


def test_a_prompt_without_the_token_is_not_queued(closed: Served) -> None:
    answer = requests.post(f"{closed.url}/prompt", json={"prompt": plain("t/output/x")}, timeout=10)

    assert answer.status_code == 401
    assert not (closed.jobs / "t").exists()


def test_the_digest_is_not_the_token() -> None:
    digest = hashlib.sha256(b"token").digest()
    door = Door(digest)

    assert door.is_right(b"token")
    assert not door.is_right(digest)
    assert not door.is_right(digest.hex().encode())
    assert not door.is_right(b"")
