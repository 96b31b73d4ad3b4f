"""Requests to origins: redirects followed by hand, refusals translated, nothing decoded."""

import email.utils
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from morpheus_boot.cache.origins.addresses import is_forbidden
from morpheus_boot.cache.origins.origin import Address, TransientFailure, Validator
from morpheus_boot.config.redact import Secret, without_secrets
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import CIVITAI_HOSTS

FIRST_BYTE: Final = {"Range": "bytes=0-0"}
TRY_LATER: Final = "try again later, nothing is wrong here: its server is busy or out of order"
_MOST_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# What a range of a file without a byte is answered with (RFC 9110, 14.4).
_NOTHING: Final = "bytes */0"
_WEB_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The last hop's response, not yet read, and its address; the ETag of the first hop."""

    response: requests.Response
    address: Address
    first_etag: str | None

    @property
    def size_bytes(self) -> int | None:
        """The whole file's length, where its first byte was asked for, ranges honoured or not."""
        if self.response.status_code == 206:
            span = content_range(self.response)
            return span[2] if span else None
        return content_length(self.response)

    @property
    def validator(self) -> Validator:
        """By what the last hop tells versions apart."""
        headers = self.response.headers
        return Validator(strong_etag(headers.get("ETag")), headers.get("Last-Modified"))


class Client:
    """Asks origins, from any thread; keeps up to ``connections`` open between requests.

    ``connect_s`` and ``read_s`` are the time-outs of a socket, not of a whole answer.
    """

    def __init__(
        self, connections: int = 32, *, connect_s: float = 10.0, read_s: float = 30.0
    ) -> None:
        self._timeouts = (connect_s, read_s)
        self._session = requests.Session()
        # No origin of models needs a cookie, and a jar would carry what one host said to the next request.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _SharedContextAdapter(connections)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def get(self, address: Address, headers: Mapping[str, str], subject: str) -> Answer:
        """As follow(), where the status is 200 or 206, and the body no web page and not encoded.

        Raises:
            TransientFailure: a connection failed, or the origin said 408, 416, 425, 429 or 5xx.
            OriginDenied, OriginUnavailable: it refuses, or answers what can't be the model.
        """
        answer = self.follow(address, headers, subject)
        refuse(answer.response, subject, signed=answer.address.is_redirected)
        return answer

    def follow(self, address: Address, headers: Mapping[str, str], subject: str) -> Answer:
        """GETs with redirects followed, whatever the status; the body is unread.

        The token goes to its own hosts alone: Civitai's storage answers 400 to it.
        Raises TransientFailure, OriginUnavailable.
        """
        first_etag: str | None = None
        asked = address
        for hop in range(_MOST_REDIRECTS + 1):
            response = self._send(address, headers, subject)
            if hop == 0:
                first_etag = response.headers.get("X-Linked-ETag") or response.headers.get("ETag")
            if response.status_code not in _REDIRECTS:
                return Answer(response, address, strong_etag(first_etag))
            target = urljoin(response.url, response.headers.get("Location", ""))
            response.close()
            check_redirect(response.url, target, subject)
            address = replace(address, url=Secret(target), is_redirected=True)
        raise OriginUnavailable(
            subject,
            f"{without_secrets(asked.url.reveal())} redirects more than {_MOST_REDIRECTS} times",
            "check its URL in a browser",
        )

    def _send(
        self, address: Address, headers: Mapping[str, str], subject: str
    ) -> requests.Response:
        # Encoded bytes would be saved as the model: identity is asked for, and anything else is refused.
        headers = {"Accept-Encoding": "identity", **headers}
        url = address.url.reveal()
        if address.token is not None and urlsplit(url).hostname in address.token_hosts:
            headers["Authorization"] = f"Bearer {address.token.reveal()}"
        where = without_secrets(url)
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=self._timeouts
            )
        except requests.exceptions.SSLError as error:
            why = reason(error)
            # A handshake that is cut is an SSLError too, and passes; a certificate does not.
            if "certificate" not in why:
                raise TransientFailure(f"{where} can't be reached ({why})") from error
            raise OriginUnavailable(
                subject,
                f"the certificate of {where} is not accepted ({why})",
                "check the URL, the clock, and the proxy of this machine",
            ) from error
        except requests.exceptions.ConnectionError as error:
            why = reason(error)
            # A kept connection that has been closed meanwhile says nothing about how many are allowed.
            raise TransientFailure(
                f"{where} can't be reached ({why})", crowded="refused" in why
            ) from error
        except requests.exceptions.Timeout as error:
            raise TransientFailure(f"{where} does not answer (timed out)") from error
        except (requests.RequestException, ValueError) as error:
            # requests lets urllib3's LocationParseError and its kind through, which are ValueErrors.
            raise OriginUnavailable(
                subject,
                f"{where} can't be asked ({type(error).__name__})",
                "check its URL in models.yaml",
            ) from error


class _SharedContextAdapter(HTTPAdapter):
    """Has one TLS context for all connections: to read the list of authorities for each costs 15 ms of CPU."""

    def __init__(self, connections: int) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        super().__init__(pool_maxsize=connections)

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - requests' own signature
        cert: Any = None,  # noqa: ANN401 - requests' own signature
    ) -> tuple[Any, Any]:
        """The pool's address, and our context in place of what would make one for each connection."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
        return host, {"ssl_context": self._context(bundle)}

    def cert_verify(self, conn: Any, *_: object) -> None:  # noqa: ANN401 - a pool of urllib3's
        """Always verifies, and leaves all else to the context."""
        conn.cert_reqs = "CERT_REQUIRED"

    def _context(self, bundle: str) -> ssl.SSLContext:
        with self._lock:
            if bundle not in self._contexts:
                context = create_urllib3_context()
                context.verify_mode = ssl.CERT_REQUIRED
                is_folder = Path(bundle).is_dir()
                context.load_verify_locations(**{"capath" if is_folder else "cafile": bundle})
                self._contexts[bundle] = context
            return self._contexts[bundle]


def check_redirect(url: str, target: str, subject: str) -> None:
    """Raises OriginUnavailable where a redirect from ``url`` to ``target`` must not be followed."""
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        cause = f"its origin redirects to {without_secrets(target)!r}"
    elif parts.scheme == "http" and urlsplit(url).scheme == "https":
        cause = (
            f"its origin redirects from https to {without_secrets(target)}, which is not encrypted"
        )
    elif is_forbidden(parts.hostname):
        cause = (
            f"its origin redirects to {parts.hostname}, an address of this machine's own network"
        )
    else:
        return
    raise OriginUnavailable(subject, cause, "check its URL")


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


def refuse(response: requests.Response, subject: str, *, signed: bool) -> None:
    """Raises for every answer but 200 and 206 with a body that may be a model; the response is closed then.

    ``signed``: behind a redirect a 403 is a signature that has expired; a new one comes with a new resolution.
    Raises TransientFailure, OriginDenied, OriginUnavailable.
    """
    status = response.status_code
    where = without_secrets(response.url)
    if status in (200, 206):
        _refuse_body(response, subject, where)
        return
    response.close()
    said = f"{where} answers {status} {response.reason}"
    if status in (408, 425, 429) or status >= 500:
        wished_s = retry_after_s(response.headers.get("Retry-After"))
        raise TransientFailure(said, wished_s, crowded=status in (429, 503), mend=TRY_LATER)
    if status == 416 and response.headers.get("Content-Range", "").strip() == _NOTHING:
        raise OriginUnavailable(subject, f"{where} is empty", "check its URL in models.yaml")
    if status == 416 or (signed and status in (401, 403, 410)):
        raise TransientFailure(said)
    if status in (401, 403):
        raise OriginDenied(subject, said, _denied_mend(response))
    raise OriginUnavailable(subject, said, "check its URL in models.yaml")


def _refuse_body(response: requests.Response, subject: str, where: str) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _WEB_PAGES:
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


def _denied_mend(response: requests.Response) -> str:
    host = urlsplit(response.url).hostname
    if host in CIVITAI_HOSTS:
        return "set CIVITAI_TOKEN to a token that may download it"
    # Of other hosts HF_ENDPOINT's alone was sent a token.
    if host == "huggingface.co" or "Authorization" in response.request.headers:
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


def reason(error: Exception) -> str:
    """Why a connection failed, in words that are the same whichever library says so."""
    text = str(error)
    for known in (
        "Name or service not known",
        "No address associated with hostname",
        "Temporary failure in name resolution",
        "nodename nor servname",
    ):
        if known in text:
            return "its name can't be resolved: check DNS"
    for known in (
        "certificate verify failed",
        "Connection refused",
        "timed out",
        "Connection reset",
    ):
        if known in text:
            return known.lower()
    return "its certificate names another host" if "doesn't match" in text else type(error).__name__
