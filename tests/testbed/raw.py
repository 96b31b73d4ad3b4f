"""A client that hides nothing: status, headers, and how the body really ended."""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply as it arrived. ``end``: whole, short (Content-Length says more), reset, or silent (nothing more came)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    end: str


def ask(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    timeout_s: float = _TIMEOUT_S,
    trusted: ssl.SSLContext | None = None,
) -> Heard:
    """One request on a connection of its own, no redirect followed, nothing decoded. Raises OSError before a status."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout_s, context=trusted)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, headers=dict(headers or {}))
        response = connection.getresponse()
        body, end = _read(response)
        return Heard(response.status, dict(response.headers), body, end)
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> tuple[bytes, str]:
    body = bytearray()
    try:
        while piece := response.read1(65536):
            body += piece
    except TimeoutError:
        return bytes(body), "silent"
    except ConnectionResetError:
        return bytes(body), "reset"
    except http.client.IncompleteRead:
        return bytes(body), "short"
    # read1 returns nothing at an early end, too: what is left of Content-Length tells.
    return bytes(body), "short" if response.length else "whole"
