"""Civitai: its API says size, SHA-256 and name of a version's primary file; the bytes lie in signed storage.

The routes and their answers are those of pages/api of github.com/civitai/civitai.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import BaseModel, ValidationError

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.http import FIRST_BYTE, Answer, Client, refuse
from morpheus_boot.cache.origins.origin import Address, Resolved, TransientFailure
from morpheus_boot.cache.parts import Version
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import CivitaiSource
from morpheus_boot.volume.digests import sha256_in

_SET_TOKEN: Final = "set CIVITAI_TOKEN to the token of an account that may download it"  # noqa: S105 - a sentence, not a token
_MOST_JSON_BYTES: Final = 8 * 1024 * 1024
_MOST_TEXT_BYTES: Final = 4096


class _File(BaseModel):
    name: str
    primary: bool = False
    hashes: dict[str, str | None] = {}


class _ModelVersion(BaseModel):
    files: list[_File]


class CivitaiOrigin:
    """The primary file of one model version."""

    def __init__(
        self, subject: str, source: CivitaiSource, credentials: Credentials, client: Client
    ) -> None:
        self.subject = subject
        self._source = source
        self._name = f"civitai version {source.version_id}"
        self._endpoint = credentials.civitai_endpoint
        self._token = credentials.civitai_token
        self._client = client
        self._hosts = frozenset({urlsplit(self._endpoint).hostname or ""})

    def resolve(self) -> Resolved:
        """Asks the API for the digest, and the storage for the size: the API knows it in KB only."""
        version_id = self._source.version_id
        answer = self._ask(f"/api/v1/model-versions/{version_id}", {"Accept": "application/json"})
        with answer.response as response:
            sha256 = self._sha256_in(self._read(response, _MOST_JSON_BYTES))
        answer = self._ask(f"/api/download/models/{version_id}", FIRST_BYTE)
        with answer.response as response:
            return Resolved(
                answer.address,
                Version(self._source.identity, answer.size_bytes, sha256, answer.first_etag),
                answer.validator,
                honours_ranges=response.status_code == 206,
            )

    def _ask(self, path: str, headers: Mapping[str, str]) -> Answer:
        address = Address(Secret(self._endpoint + path), self._token, self._hosts)
        answer = self._client.follow(address, headers, self.subject)
        try:
            self._refuse(answer.response)
        except BaseException:
            answer.response.close()
            raise
        return answer

    def _sha256_in(self, document: bytes) -> str | None:
        try:
            files = _ModelVersion.model_validate_json(document).files
        except ValidationError as error:
            cause = f"{self._name}: {self._endpoint} answers nonsense"
            raise TransientFailure(cause) from error
        if not files:
            raise OriginUnavailable(
                self.subject,
                f"{self._name} has no files: it is archived or deleted",
                "choose another version in models.yaml",
            )
        primary = next((file for file in files if file.primary), files[0])
        return sha256_in(primary.hashes.get("SHA256") or "")

    def _read(self, response: requests.Response, most_bytes: int) -> bytes:
        # An endless answer must not fill the memory.
        try:
            text: bytes = response.raw.read(most_bytes, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientFailure(f"{self._name}: {self._endpoint} broke off") from error
        return text

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # Who is not logged in is sent to a login page, whose path says so.
        login = kind == "text/html" and urlsplit(response.url).path.startswith("/login")
        asked_civitai = urlsplit(response.url).hostname in self._hosts
        if login or (status == 401 and asked_civitai):
            raise OriginDenied(
                self.subject, f"{self._name} may be downloaded by who is logged in", _SET_TOKEN
            )
        if status == 403 and asked_civitai:
            raise self._forbidden(response)
        if status == 404 and asked_civitai:
            raise OriginUnavailable(
                self.subject,
                f"{self._name} does not exist, or was deleted",
                "check the id in models.yaml: that of a version, which its page calls modelVersionId",
            )
        if status == 410 and asked_civitai:
            raise OriginUnavailable(
                self.subject,
                f"{self._name} is archived and not available for download",
                "choose another version in models.yaml",
            )
        refuse(response, self.subject, signed=not asked_civitai)

    def _forbidden(self, response: requests.Response) -> OriginDenied:
        said = self._read(response, _MOST_TEXT_BYTES).decode("utf-8", "replace").lower()
        if "early access" in said:
            return OriginDenied(
                self.subject,
                f"{self._name} is in early access",
                "buy access to it and set CIVITAI_TOKEN to that account's token, or wait until it is public",
            )
        return OriginDenied(self.subject, f"{self._name}: Civitai answers 403", _SET_TOKEN)
