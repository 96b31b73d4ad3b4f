"""One request to an origin: redirects followed by hand, refusals translated, nothing decoded."""

import email.utils
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import requests

from morpheus_boot.cache.retry import TransientFailure
from morpheus_boot.errors import MorpheusError, OriginDenied, OriginUnavailable
from morpheus_boot.redact import Secret, without_secrets

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
_MOST_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "metadata"})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for. ``token`` goes to the hosts ``token_hosts`` as a Bearer token, and to no other."""

    url: Secret
    headers: Mapping[str, str]
    token: Secret | None = None
    token_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """The last hop's response, not yet read, the ETag of the first hop, and whether they are two."""

    response: requests.Response
    first_etag: str | None
    redirected: bool


def get(session: requests.Session, request: Request, subject: str) -> Answer:
    """GETs with redirects followed, body unread; the status is 200 or 206, and the body is no web page.

    The token is dropped as soon as a redirect leaves its host: Civitai's storage answers 400 to it.

    Raises:
        TransientFailure: a connection failed, or the origin said 408, 429 or 5xx.
        OriginDenied, OriginUnavailable: it refuses, or answers what can't be the model.
    """
    url = request.url.reveal()
    first_etag: str | None = None
    for hop in range(_MOST_REDIRECTS + 1):
        response = _send(session, url, request)
        if hop == 0:
            first_etag = response.headers.get("X-Linked-ETag") or response.headers.get("ETag")
        if response.status_code not in _REDIRECTS:
            _refuse(response, subject, signed=hop > 0)
            return Answer(response, first_etag, redirected=hop > 0)
        target = urljoin(url, response.headers.get("Location", ""))
        response.close()
        _check_redirect(target, subject)
        url = target
    raise OriginUnavailable(
        subject,
        f"{without_secrets(request.url.reveal())} redirects more than {_MOST_REDIRECTS} times",
        "check its URL in a browser",
    )


def content_range(response: requests.Response) -> tuple[int, int, int | None] | None:
    """First byte, last byte and total (None: not said) of a Content-Range (RFC 9110, 14.4), or None."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None
    total = match[3]
    return int(match[1]), int(match[2]), None if total == "*" else int(total)


def content_length(response: requests.Response) -> int | None:
    """Content-Length in bytes, or None."""
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def strong_etag(etag: str | None) -> str | None:
    """``etag`` if it may validate a range (RFC 9110, 13.1.5), else None."""
    return etag if etag and not etag.startswith("W/") else None


def _send(session: requests.Session, url: str, request: Request) -> requests.Response:
    # Encoded bytes would be saved as the model: identity is asked for, and anything else is refused.
    headers = {"Accept-Encoding": "identity", **request.headers}
    if request.token is not None and urlsplit(url).hostname in request.token_hosts:
        headers["Authorization"] = f"Bearer {request.token.reveal()}"
    try:
        return session.get(
            url,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        )
    except requests.exceptions.SSLError as error:
        raise OriginUnavailable(
            without_secrets(url),
            f"its certificate is not accepted ({_reason(error)})",
            "check the URL, the clock, and the proxy of this machine",
        ) from error
    except requests.RequestException as error:
        raise TransientFailure(
            f"{without_secrets(url)} can't be reached ({_reason(error)})"
        ) from error


def _check_redirect(target: str, subject: str) -> None:
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OriginUnavailable(
            subject, f"its origin redirects to {without_secrets(target)!r}", "check its URL"
        )
    if parts.hostname in _METADATA_HOSTS or _is_link_local(parts.hostname):
        raise OriginUnavailable(
            subject,
            f"its origin redirects to {parts.hostname}, an address of this machine's own network",
            "check its URL",
        )


def _is_link_local(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError:
        return False  # the request itself will say that the name is unknown
    return any(ipaddress.ip_address(str(f[4][0]).partition("%")[0]).is_link_local for f in found)


def _refuse(response: requests.Response, subject: str, *, signed: bool) -> None:
    status = response.status_code
    where = without_secrets(response.url)
    if status in (200, 206):
        _refuse_body(response, subject, where)
        return
    response.close()
    said = f"{where} answers {status} {response.reason}"
    # Behind a redirect a 403 is a signature that has expired: a new one comes with a new resolution.
    if status in (408, 425, 429) or status >= 500 or (signed and status in (401, 403, 410)):
        raise TransientFailure(said, retry_after_s(response.headers.get("Retry-After")))
    if status == 416:
        raise TransientFailure(said)
    if status in (401, 403):
        raise OriginDenied(subject, said, _denied_mend(response.url))
    raise OriginUnavailable(subject, said, "check its URL in models.yaml")


def _refuse_body(response: requests.Response, subject: str, where: str) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        response.close()
        raise OriginUnavailable(
            subject,
            f"{where} answers a web page instead of the model",
            "check its URL, and the token if it wants a login",
        )
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        response.close()
        raise OriginUnavailable(
            subject, f"{where} sends it encoded ({encoding}), unasked", "use another origin"
        )


def _denied_mend(url: str) -> str:
    host = urlsplit(url).hostname or ""
    if host.endswith("civitai.com"):
        return "set CIVITAI_TOKEN to a token that may download it"
    if host.endswith("huggingface.co"):
        return "set HF_TOKEN to a token that may read it"
    return "check its URL and token"


def retry_after_s(value: str | None) -> float | None:
    """Retry-After in seconds, from both of its forms (RFC 9110, 10.2.3); None where it says nothing."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())


def _reason(error: Exception) -> str:
    text = str(error)
    for known in ("Name or service not known", "Temporary failure in name resolution"):
        if known in text:
            return "its name can't be resolved: check DNS"
    for known in (
        "Connection refused",
        "timed out",
        "Connection reset",
        "certificate verify failed",
    ):
        if known in text:
            return known.lower()
    return type(error).__name__


def as_morpheus_error(subject: str, failure: TransientFailure) -> MorpheusError:
    """The error for a failure that did not pass."""
    return OriginUnavailable(
        subject, failure.cause, "check the network and its URL, then try again"
    )
