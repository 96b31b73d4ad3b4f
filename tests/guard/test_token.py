"""Whoever has no token gets 401 from ComfyUI's port, whatever is asked and however."""

import asyncio
import hashlib
from urllib.parse import quote

import aiohttp
import pytest
import requests

from tests.guard.served import TOKEN, Served, plain

GET = """
/ // /index.html /?token= /?token=wrong //?token={token} /api?token={token} /system_stats?token={token} /system_stats
/api/system_stats //system_stats /api//system_stats /%73ystem_stats /x/../system_stats http://127.0.0.1/system_stats
/prompt /internal/logs /internal/folder_paths /view?filename=x.png /ws /ws?token={token} /health /ping
/extensions/core/x.js /scripts/../../etc/passwd
"""
OTHERS = """
HEAD / HEAD /object_info POST / POST /?token={token} POST /prompt POST /api/prompt POST /upload/image POST /interrupt
OPTIONS /prompt OPTIONS * PUT /prompt DELETE /userdata/x PATCH /internal/logs/subscribe TRACE / PROPFIND /system_stats
"""
ASKED = [
    *(("GET", target) for target in GET.split()),
    *zip(OTHERS.split()[::2], OTHERS.split()[1::2], strict=True),
]


def test_the_pages_of_a_named_origin_may_ask_first_and_need_the_token_then(closed: Served) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    url = f"{closed.url}/prompt"

    answers = [requests.request(m, url, headers=asks, timeout=10) for m in ("OPTIONS", "GET")]
    foreign = {**asks, "Origin": "https://other.example"}
    stranger = requests.options(url, headers=foreign, timeout=10)

    assert [answer.status_code for answer in (*answers, stranger)] == [204, 401, 401]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == asks["Origin"]
    assert "Access-Control-Allow-Origin" not in stranger.headers


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
    assert body in {b"", requests.get(f"{closed.url}/nothing", timeout=10).content}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Authorization", value) for value in ("Bearer wrong", "Bearer ", "Bearer", TOKEN)),
        *(("Authorization", f"{scheme} {TOKEN}") for scheme in ("Basic", "Token")),
        ("Authorization", f"Bearer {TOKEN[:-1]}"),
        ("Authorization", f"Bearer {hashlib.sha256(TOKEN.encode()).hexdigest()}"),
        *(("X-Morpheus-Token", value) for value in ("", f"{TOKEN}x")),
        *(("Cookie", value) for value in ("morpheus_token=", f"other={quote(TOKEN)}")),
        ("X-Forwarded-For", "127.0.0.1"),
    ],
)
def test_what_is_no_token_does_not_open(closed: Served, name: str, value: str) -> None:
    for path in ("/", "/system_stats", "/nothing"):
        answer = requests.get(closed.url + path, headers={name: value}, timeout=10)
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Morpheus-Token": TOKEN},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer {TOKEN}"},
        {"X-Morpheus-Token": TOKEN, "Authorization": "Bearer runpods-own-key"},
    ],
)
def test_the_token_opens_in_either_header(closed: Served, headers: dict[str, str]) -> None:
    assert requests.get(f"{closed.url}/system_stats", headers=headers, timeout=10).ok


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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_browser_gets_a_session_cookie_and_uses_it(closed: Served, scheme: str) -> None:
    browser = requests.Session()
    sent = {"X-Forwarded-Proto": scheme}

    first = browser.get(
        f"{closed.url}/?token={quote(TOKEN)}", headers=sent, allow_redirects=False, timeout=10
    )

    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert first.headers["cache-control"] == "no-store"
    value, *flags = first.headers["set-cookie"].split("; ")
    # As the file server's: a host's ports share their cookies. Without an age: it ends with the session.
    assert value == f"morpheus_token={quote(TOKEN, safe='')}"
    secure = {"Secure"} if scheme == "https" else set()
    assert set(flags) == {"HttpOnly", "Path=/", "SameSite=Strict"} | secure
    if scheme == "http":
        assert browser.get(f"{closed.url}/system_stats", timeout=10).ok


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
