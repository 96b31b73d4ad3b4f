"""Hugging Face: huggingface_hub resolves repo, revision and file; the bytes come through our own engine."""

from urllib.parse import urlsplit

import httpx2
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.constants import MAX_HTTP_DOWNLOAD_SIZE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.transfer.http import check_redirect, reason, retry_after_s
from morpheus_boot.cache.transfer.retry import TRY_LATER, TransientFailure
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import HuggingFaceSource
from morpheus_boot.volume.digests import sha256_in


class HuggingFaceOrigin:
    """One file of a repository on the hub, or on what HF_ENDPOINT names."""

    def __init__(
        self, model_path: str, source: HuggingFaceSource, credentials: Credentials
    ) -> None:
        self._model_path = model_path
        self._source = source
        self._token = credentials.hf_token
        self._endpoint = credentials.hf_endpoint

    def resolve(self) -> Resolved:
        """HEADs the file. Its ETag is its SHA-256 where the file is in LFS or Xet (X-Linked-Etag)."""
        source = self._source
        name = f"{source.repo}/{source.file}@{source.revision}"
        url = hf_hub_url(
            source.repo, source.file, revision=source.revision, endpoint=self._endpoint
        )
        try:
            found = get_hf_file_metadata(
                url, token=self._token.reveal() if self._token else False, endpoint=self._endpoint
            )
        except GatedRepoError as error:
            raise OriginDenied(
                self._model_path,
                f"{name} is gated",
                f"accept its terms at {self._endpoint}/{source.repo}, and set HF_TOKEN to that account's token",
            ) from error
        except RepositoryNotFoundError as error:
            raise self._not_found(name, error) from error
        except (RevisionNotFoundError, EntryNotFoundError) as error:
            raise OriginUnavailable(
                self._model_path,
                f"{name} does not exist",
                "check its file and revision in models.yaml",
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(name, error) from error
        except (httpx2.HTTPError, OSError) as error:
            raise TransientFailure(
                f"{self._endpoint} can't be reached ({reason(error)})"
            ) from error
        self._refuse_what_only_xet_gives(name, found.size)
        direct = found.location if found.location != url else None
        if direct is not None:
            check_redirect(url, direct, self._model_path)
        etag = (found.etag or "").strip('"')
        return Resolved(
            url=Secret(url),
            version=Version(
                origin=source.identity,
                size_bytes=found.size,
                sha256=sha256_in(etag),
                etag=f'"{etag}"' if etag else None,
            ),
            token=self._token,
            token_hosts=frozenset({urlsplit(self._endpoint).hostname or ""}),
            commit=found.commit_hash,
            direct=Secret(direct) if direct is not None else None,
            # Its storage does, and where it once did not the transfer would notice.
            honours_ranges=found.size is not None,
        )

    def _refuse_what_only_xet_gives(self, name: str, size_bytes: int | None) -> None:
        if size_bytes is not None and size_bytes > MAX_HTTP_DOWNLOAD_SIZE:
            raise OriginUnavailable(
                self._model_path,
                f"{name} has {size_bytes} bytes, and above {MAX_HTTP_DOWNLOAD_SIZE} Hugging Face gives a file"
                " through Xet alone",
                "name a smaller file in models.yaml, such as one of several parts",
            )

    def _not_found(
        self, name: str, error: RepositoryNotFoundError
    ) -> OriginDenied | OriginUnavailable:
        # The hub says 401 alike for what is missing and for what is private.
        if self._token is None and error.response.status_code == 401:
            return OriginDenied(
                self._model_path,
                f"{name} does not exist, or is private",
                "check its repo in models.yaml, and set HF_TOKEN if it is private",
            )
        return OriginUnavailable(
            self._model_path,
            f"{name} does not exist, or HF_TOKEN may not see it",
            "check its repo in models.yaml",
        )

    def _refused(self, name: str, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        if status == 429 or status >= 500:
            wished_s = retry_after_s(error.response.headers.get("Retry-After"))
            return TransientFailure(
                f"{name}: {self._endpoint} answers {status}", wished_s, mend=TRY_LATER
            )
        if status in (401, 403):
            return OriginDenied(
                self._model_path,
                f"{name}: {self._endpoint} answers {status}",
                "set HF_TOKEN to a token that may read it",
            )
        return OriginUnavailable(
            self._model_path,
            f"{name}: {self._endpoint} answers {status}",
            "check it in models.yaml",
        )
