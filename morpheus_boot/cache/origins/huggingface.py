"""Hugging Face: huggingface_hub resolves repo, revision and file; the bytes come through our own engine."""

from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.http import TRY_LATER, check_redirect, reason, retry_after_s
from morpheus_boot.cache.origins.origin import Address, Resolved, TransientFailure
from morpheus_boot.cache.parts import Version
from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import OriginDenied, OriginUnavailable
from morpheus_boot.manifest import HuggingFaceSource
from morpheus_boot.volume.digests import sha256_in

# HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE are meant for custom nodes; huggingface_hub has read them at its import.
constants.HF_HUB_OFFLINE = False


class HuggingFaceOrigin:
    """One file of a repository on the hub, or on what HF_ENDPOINT names."""

    def __init__(self, subject: str, source: HuggingFaceSource, credentials: Credentials) -> None:
        self.subject = subject
        self._source = source
        self._name = f"{source.repo_path}/{source.file}@{source.revision}"
        self._token = credentials.hf_token
        self._endpoint = credentials.hf_endpoint

    def resolve(self) -> Resolved:
        """HEADs the file. Its ETag is its SHA-256 where the file is in LFS or Xet (X-Linked-Etag)."""
        source = self._source
        url = hf_hub_url(
            source.repo,
            source.file,
            repo_type=source.kind,
            revision=source.revision,
            endpoint=self._endpoint,
        )
        try:
            found = get_hf_file_metadata(
                url, token=self._token.reveal() if self._token else False, endpoint=self._endpoint
            )
        except GatedRepoError as error:
            raise OriginDenied(
                self.subject,
                f"{self._name} is gated",
                f"accept its terms at {self._endpoint}/{source.repo_path}, and set HF_TOKEN to that account's token",
            ) from error
        except RepositoryNotFoundError as error:
            raise self._not_found(error) from error
        except (RevisionNotFoundError, EntryNotFoundError) as error:
            raise OriginUnavailable(
                self.subject,
                f"{self._name} does not exist",
                "check its file and revision in models.yaml",
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(error) from error
        except (httpx2.HTTPError, OSError) as error:
            raise TransientFailure(
                f"{self._endpoint} can't be reached ({reason(error)})"
            ) from error
        most_bytes = constants.MAX_HTTP_DOWNLOAD_SIZE
        if found.size is not None and found.size > most_bytes:
            raise OriginUnavailable(
                self.subject,
                f"{self._name} has {found.size} bytes, and above {most_bytes} Hugging Face gives a file"
                " through Xet alone",
                "name a smaller file in models.yaml, such as one of several parts",
            )
        is_redirected = found.location != url
        if is_redirected:
            check_redirect(url, found.location, self.subject)
        etag = (found.etag or "").strip('"')
        return Resolved(
            Address(
                Secret(found.location),
                self._token,
                frozenset({urlsplit(self._endpoint).hostname or ""}),
                is_redirected,
            ),
            Version(source.identity, found.size, sha256_in(etag), f'"{etag}"' if etag else None),
            commit=found.commit_hash,
            # Its storage does, and where it once did not the transfer would notice.
            honours_ranges=found.size is not None,
        )

    def _not_found(self, error: RepositoryNotFoundError) -> OriginDenied | OriginUnavailable:
        # The hub says 401 alike for what is missing and for what is private.
        if self._token is None and error.response.status_code == 401:
            return OriginDenied(
                self.subject,
                f"{self._name} does not exist, or is private",
                "check its repo in models.yaml, and set HF_TOKEN if it is private",
            )
        return OriginUnavailable(
            self.subject,
            f"{self._name} does not exist, or HF_TOKEN may not see it",
            "check its repo in models.yaml",
        )

    def _refused(self, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        if status == 429 or status >= 500:
            wished_s = retry_after_s(error.response.headers.get("Retry-After"))
            return TransientFailure(
                f"{self._name}: {self._endpoint} answers {status}", wished_s, mend=TRY_LATER
            )
        if status in (401, 403):
            return OriginDenied(
                self.subject,
                f"{self._name}: {self._endpoint} answers {status}",
                "set HF_TOKEN to a token that may read it",
            )
        return OriginUnavailable(
            self.subject,
            f"{self._name}: {self._endpoint} answers {status}",
            "check it in models.yaml",
        )
