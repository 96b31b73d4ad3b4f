"""The package index as pip's own settings name it, and a pinned wheel from it; standard library only.

pip itself is fetched for a Python without it: a bare Debian's python3 has the module venv, and neither pip nor
ensurepip (those are python3-pip, python3-venv).
"""

import base64
import configparser
import hashlib
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from morpheus_boot.config.redact import without_secrets
from morpheus_boot.errors import NotSetUp, OriginUnavailable


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of ``project`` by its file's name."""

    project: str
    name: str
    sha256: str


PIP: Final = Wheel(
    "pip",
    "pip-26.3-py3-none-any.whl",
    "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
)

# pip's own default (pip.pypa.io, "pip install", --index-url).
_DEFAULT_INDEX: Final = "https://pypi.org/simple"
_TIMEOUT_S: Final = 30
_WAITS_S: Final = (1.0, 3.0)
CHECK_NETWORK: Final = (
    "check the network and pip's configuration (pip config list), and start again"
)
_NETWORK: Final = "check the network, or name another index in PIP_INDEX_URL"
_CERTIFICATES: Final = "install ca-certificates, or name your own in SSL_CERT_FILE"
_OTHER_INDEX: Final = "name another index in PIP_INDEX_URL, or install pip or uv"


def pip_settings(environ: Mapping[str, str], *more_files: Path) -> dict[str, str]:
    """What pip is told, by its options' names (``index-url``): in its files, then in its variables.

    The files and their order: pip.pypa.io, "Configuration". ``more_files`` come after the user's, as that of a virtual
    environment does. Raises NotSetUp where one can't be parsed.
    """
    config_home = environ.get("XDG_CONFIG_HOME") or "~/.config"
    named = environ.get("PIP_CONFIG_FILE", "")
    files = (
        "/etc/xdg/pip/pip.conf",
        "/etc/pip.conf",
        "~/.pip/pip.conf",
        f"{config_home}/pip/pip.conf",
        *map(str, more_files),
        named,
    )
    config = configparser.RawConfigParser(strict=False)
    try:
        if named != os.devnull:  # that stands for no file at all
            config.read([Path(file).expanduser() for file in files if file], encoding="utf-8")
    except configparser.Error as error:
        cause = " ".join(str(error).split())
        raise NotSetUp("pip.conf", f"can't be parsed ({cause})", "mend or remove it") from error
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if config.has_section(section):
            settings |= config.items(section)
    for name, value in environ.items():
        if name.startswith("PIP_") and value.strip():
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {name: value.strip() for name, value in settings.items() if value.strip()}


def index_url(environ: Mapping[str, str]) -> str:
    """The index that pip would use. Raises NotSetUp where a pip.conf can't be parsed."""
    return pip_settings(environ).get("index-url", _DEFAULT_INDEX).rstrip("/")


def fetch_wheel(
    wheel: Wheel, index: str, folder: Path, sleep: Callable[[float], None] = time.sleep
) -> Path:
    """Fetches ``wheel`` from ``index`` (PEP 503, HTML) into ``folder`` and returns its path.

    Raises OriginUnavailable where the index can't be reached, doesn't have it, or sends something else.
    """
    page_url, page = _get(f"{index}/{wheel.project}/", index, sleep)
    links = _Links()
    links.feed(page.decode(errors="replace"))
    link = next((link for link in links.found if _file_name(link) == wheel.name), None)
    if link is None:
        raise OriginUnavailable(
            "package index", f"{without_secrets(index)} has no {wheel.name}", _OTHER_INDEX
        )
    _, content = _get(urljoin(page_url, link), index, sleep)
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        raise OriginUnavailable(
            "package index",
            f"{without_secrets(index)} sends another {wheel.name} than the pinned one",
            _OTHER_INDEX,
        )
    file = folder / wheel.name
    file.write_bytes(content)
    return file


class _Links(HTMLParser):
    """Collects the targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.extend(value for name, value in attrs if name == "href" and value)


def _file_name(link: str) -> str:
    return PurePosixPath(unquote(urlsplit(link).path)).name


def _get(url: str, index: str, sleep: Callable[[float], None]) -> tuple[str, bytes]:
    """The URL that answered in the end, and its body; tried again where that may help."""
    request = _request(url, index)
    waits_s = iter(_WAITS_S)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the user's own index
                return answer.url, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                wait_s = next(waits_s, None) if error.code >= 500 else None
                if wait_s is None:
                    raise _unreadable(url, error, _OTHER_INDEX) from error
        except (OSError, HTTPException) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise _unreadable(url, error, _CERTIFICATES) from error
            wait_s = next(waits_s, None)
            if wait_s is None:
                raise _unreadable(url, error, _NETWORK) from error
        sleep(wait_s)


def _unreadable(url: str, error: Exception, mend: str) -> OriginUnavailable:
    return OriginUnavailable(
        "package index", f"{without_secrets(url)} can't be read ({error})", mend
    )


def _request(url: str, index: str) -> urllib.request.Request:
    """A request whose user and password, which urllib does not take from a URL, go to the index alone."""
    parts, ours = urlsplit(url), urlsplit(index)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(  # noqa: S310 - the user's own index
        urlunsplit(parts._replace(netloc=host, fragment="")),
        headers={"User-Agent": "morpheus-boot", "Accept": "text/html"},
    )
    if ours.username and ours.netloc.rpartition("@")[2] == host:
        credentials = f"{unquote(ours.username)}:{unquote(ours.password or '')}"
        basic = base64.b64encode(credentials.encode()).decode()
        # Unredirected: a redirect may lead to another host.
        request.add_unredirected_header("Authorization", f"Basic {basic}")
    return request
