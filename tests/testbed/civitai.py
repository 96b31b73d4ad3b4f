"""Civitai's two routes that a download needs, as its source answers them.

The source: pages/api/download/models and pages/api/v1/model-versions of github.com/civitai/civitai.
"""

import json
import re
import threading
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from tests.testbed.content import Content, sha256
from tests.testbed.exchange import Reply, Request, plain, resource_of
from tests.testbed.faults import LOGIN_PAGE
from tests.testbed.origin import Origin
from tests.testbed.storage import SignedStorage

TOKEN: Final = "testbed-civitai-token-0123456789"

_DOWNLOAD: Final = re.compile(r"/api/download/models/(\d+)")
_VERSION: Final = re.compile(r"/api/v1/model-versions/(\d+)")


class Access(Enum):
    """Who may download a version."""

    PUBLIC = "public"
    LOGIN = "login"
    EARLY = "early access"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    content: Content
    access: Access
    path: str
    digest: str


class CivitaiStandIn:
    """Model versions with one file each, whose bytes lie in ``storage``, under another host."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.storage = SignedStorage(origin, "/civitai-delivery/")
        self._lock = threading.Lock()
        self._versions: dict[int, _Version] = {}
        origin.serve_below("/api/", self._answer)
        origin.serve_below("/login", lambda _: plain(200, LOGIN_PAGE, content_type="text/html"))

    @property
    def url(self) -> str:
        """What stands for https://civitai.com."""
        return self.origin.url

    def add(
        self,
        version_id: int,
        name: str,
        content: Content,
        *,
        access: Access = Access.PUBLIC,
        digest: str | None = None,
    ) -> str:
        """Adds or replaces a version; returns the path of its bytes, for ``origin.misbehave`` and ``count``.

        ``digest``: what the API says in the place of its SHA-256.
        """
        resource = replace(
            resource_of(content),
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
        said = digest or sha256(content).upper()
        # At once: nobody hears the digest of one file and then gets the bytes of another.
        with self._lock:
            path = self.storage.put(f"{version_id}/{name}", resource)
            self._versions[version_id] = _Version(name, content, access, path, said)
        return path

    def _answer(self, request: Request) -> Reply | None:
        with self._lock:
            if match := _DOWNLOAD.fullmatch(request.path):
                return self._download(int(match[1]), request)
            if match := _VERSION.fullmatch(request.path):
                return self._describe(int(match[1]))
        return None

    def _download(self, version_id: int, request: Request) -> Reply:
        version = self._versions.get(version_id)
        if version is None:
            return _error(404, "Model not found")
        if version.access is Access.ARCHIVED:
            return _error(410, "Model archived, not available for download")
        if version.access is Access.EARLY:
            message = "This asset is in Early Access. You can use Buzz access it now!"
            return _refuse(request, 403, "Early Access", message)
        if version.access is Access.LOGIN and not _has_token(request):
            message = "The creator of this asset requires you to be logged in to download it"
            return _refuse(request, 401, "Unauthorized", message)
        return plain(307, headers={"Location": self.storage.sign(version.path)})

    def _describe(self, version_id: int) -> Reply:
        version = self._versions.get(version_id)
        if version is None:
            return _error(404, "Model not found")
        url = f"{self.url}/api/download/models/{version_id}"
        file = {
            "id": version_id + 1_000_000,
            "sizeKB": version.content.size_bytes / 1024,
            "name": version.name,
            "type": "Model",
            "hashes": {"SHA256": version.digest},
            "primary": True,
            "downloadUrl": url,
        }
        document = {
            "id": version_id,
            "modelId": version_id // 2,
            "availability": "EarlyAccess" if version.access is Access.EARLY else "Public",
            "files": [] if version.access is Access.ARCHIVED else [file],
            "downloadUrl": url,
        }
        return _json(200, document)


def _has_token(request: Request) -> bool:
    in_query = parse_qs(request.query).get("token", [""])[0]
    return TOKEN in (in_query, request.headers.get("authorization", "").removeprefix("Bearer "))


def _refuse(request: Request, status: int, error: str, message: str) -> Reply:
    if "Mozilla" in request.headers.get("user-agent", ""):
        # What looks like a browser is sent to a page, which is HTML with 200.
        return plain(307, headers={"Location": f"/login?{urlencode({'reason': error})}"})
    return _json(status, {"error": error, "message": message})


def _error(status: int, error: str) -> Reply:
    return _json(status, {"error": error})


def _json(status: int, document: dict[str, Any]) -> Reply:
    return plain(status, json.dumps(document), content_type="application/json; charset=utf-8")
