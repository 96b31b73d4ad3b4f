"""Civitai: its API says size, SHA-256 and name of a version's primary file; the bytes lie in signed storage.

The routes and their answers are those of pages/api of github.com/civitai/civitai.
"""

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.origins.web import size_of
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.transfer.http import Answer, Client, Request, refuse, strong_etag
from morpheus_boot.cache.transfer.retry import TransientFailure
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import CivitaiSource
from morpheus_boot.volume.digests import sha256_in

_SET_TOKEN: Final = "set CIVITAI_TOKEN to the token of an account that may download it"  # noqa: S105 - a sentence, not a token
_MOST_JSON_BYTES: Final = 8 * 1024 * 1024
_MOST_TEXT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    sha256: str | None


class CivitaiOrigin:
    """The primary file of one model version."""

    def __init__(
        self, model_path: str, source: CivitaiSource, credentials: Credentials, client: Client
    ) -> None:
        self._model_path = model_path
        self._source = source
        self._endpoint = credentials.civitai_endpoint
        self._token = credentials.civitai_token
        self._client = client
        self._hosts = frozenset({urlsplit(self._endpoint).hostname or ""})

    def resolve(self) -> Resolved:
        """Asks the API for the digest, and the storage for the size: the API knows it in KB only."""
        file = self._describe()
        url = Secret(f"{self._endpoint}/api/download/models/{self._source.version_id}")
        answer = self._ask(url, {"Range": "bytes=0-0"})
        with answer.response as response:
            self._refuse(response)
            size_bytes = size_of(response)
            return Resolved(
                url=url,
                version=Version(
                    self._source.identity, size_bytes, file.sha256, strong_etag(answer.first_etag)
                ),
                token=self._token,
                token_hosts=self._hosts,
                if_range=strong_etag(response.headers.get("ETag")),
                last_modified=response.headers.get("Last-Modified"),
                direct=answer.redirected_to,
                honours_ranges=response.status_code == 206,
            )

    @property
    def _name(self) -> str:
        return f"civitai version {self._source.version_id}"

    def _describe(self) -> _File:
        url = Secret(f"{self._endpoint}/api/v1/model-versions/{self._source.version_id}")
        with self._ask(url, {"Accept": "application/json"}).response as response:
            self._refuse(response)
            document = self._json(response)
        try:
            files = document["files"]
            found = next((f for f in files if f.get("primary")), files[0] if files else None)
            if found is None:
                raise OriginUnavailable(
                    self._model_path,
                    f"{self._name} has no files: it is archived or deleted",
                    "choose another version in models.yaml",
                )
            digest = str(found.get("hashes", {}).get("SHA256", ""))
            return _File(str(found["name"]), sha256_in(digest))
        except (KeyError, TypeError, AttributeError) as error:
            raise self._nonsense() from error

    def _ask(self, url: Secret, headers: dict[str, str]) -> Answer:
        return self._client.follow(
            Request(url, headers, self._token, self._hosts), self._model_path
        )

    def _json(self, response: requests.Response) -> dict[str, Any]:
        try:
            document = json.loads(self._read(response, _MOST_JSON_BYTES))
        except ValueError as error:
            raise self._nonsense() from error
        if not isinstance(document, dict):
            raise self._nonsense()
        return document

    def _read(self, response: requests.Response, most_bytes: int) -> bytes:
        # An endless answer must not fill the memory.
        try:
            text: bytes = response.raw.read(most_bytes, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientFailure(f"{self._name}: {self._endpoint} broke off") from error
        return text

    def _nonsense(self) -> TransientFailure:
        return TransientFailure(f"{self._name}: {self._endpoint} answers nonsense")

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # Who is not logged in is sent to a login page, whose path says so.
        login = kind == "text/html" and urlsplit(response.url).path.startswith("/login")
        asked_civitai = urlsplit(response.url).hostname in self._hosts
        if login or (status == 401 and asked_civitai):
            raise OriginDenied(
                self._model_path, f"{self._name} may be downloaded by who is logged in", _SET_TOKEN
            )
        if status == 403 and asked_civitai:
            raise self._forbidden(response)
        if status == 404 and asked_civitai:
            raise OriginUnavailable(
                self._model_path,
                f"{self._name} does not exist, or was deleted",
                "check the id in models.yaml: that of a version, which its page calls modelVersionId",
            )
        if status == 410 and asked_civitai:
            raise OriginUnavailable(
                self._model_path,
                f"{self._name} is archived and not available for download",
                "choose another version in models.yaml",
            )
        refuse(response, self._model_path, signed=not asked_civitai)

    def _forbidden(self, response: requests.Response) -> OriginDenied:
        said = self._read(response, _MOST_TEXT_BYTES).decode("utf-8", "replace").lower()
        if "early access" in said:
            return OriginDenied(
                self._model_path,
                f"{self._name} is in early access",
                "buy access to it and set CIVITAI_TOKEN to that account's token, or wait until it is public",
            )
        return OriginDenied(self._model_path, f"{self._name}: Civitai answers 403", _SET_TOKEN)
