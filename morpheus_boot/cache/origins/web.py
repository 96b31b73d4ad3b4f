"""Origins named by a plain URL: http, https and file."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import requests

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.transfer.http import (
    Client,
    Request,
    content_length,
    content_range,
    strong_etag,
)
from morpheus_boot.errors import OriginUnavailable, storage_error
from morpheus_boot.manifest import UrlSource

_CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com"})


class WebOrigin:
    """A model behind http or https."""

    def __init__(
        self,
        model_path: str,
        source: UrlSource,
        credentials: Credentials,
        client: Client,
    ) -> None:
        self._model_path = model_path
        self._source = source
        self._client = client
        self._credentials = credentials

    def resolve(self) -> Resolved:
        """Asks for the first byte: unlike HEAD, every origin answers that, behind signed URLs too."""
        request = self._request()
        answer = self._client.get(request, self._model_path)
        with answer.response as response:
            size_bytes = size_of(response)
            honours_ranges = response.status_code == 206
            last_etag = strong_etag(response.headers.get("ETag"))
            last_modified = response.headers.get("Last-Modified")
        etag = strong_etag(answer.first_etag)
        return Resolved(
            url=request.url,
            version=Version(self._source.identity, size_bytes, sha256=None, etag=etag),
            token=request.token,
            token_hosts=request.token_hosts,
            # Storage behind a redirect has validators of its own, and would answer 200 to the first hop's.
            if_range=last_etag,
            last_modified=last_modified,
            direct=answer.redirected_to,
            honours_ranges=honours_ranges,
        )

    def _request(self) -> Request:
        civitai = urlsplit(self._source.url.reveal()).hostname in _CIVITAI_HOSTS
        return Request(
            url=self._source.url,
            headers={"Range": "bytes=0-0"},
            token=self._credentials.civitai_token if civitai else None,
            token_hosts=_CIVITAI_HOSTS if civitai else frozenset(),
        )


def size_of(response: requests.Response) -> int | None:
    """The whole file's length by an answer to a request for its first byte, ranges honoured or not."""
    if response.status_code == 206:
        span = content_range(response)
        return span[2] if span else None
    return content_length(response)


class FileOrigin:
    """A model that lies elsewhere in this container, as file:///path."""

    def __init__(self, model_path: str, source: UrlSource) -> None:
        self._model_path = model_path
        self._source = source

    def resolve(self) -> Resolved:
        """Stats the file; its size and mtime are its version."""
        path = file_path(self._source.url.reveal())
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise OriginUnavailable(
                self._model_path, f"there is no file {path}", "check its url in models.yaml"
            ) from error
        except OSError as error:
            raise storage_error(self._model_path, path, error) from error
        return Resolved(
            url=self._source.url,
            version=Version(
                self._source.identity,
                stat.st_size,
                sha256=None,
                etag=f'"{stat.st_mtime_ns}-{stat.st_size}"',
            ),
        )


def file_path(url: str) -> Path:
    """The path of a file: URL."""
    return Path(unquote(urlsplit(url).path))
