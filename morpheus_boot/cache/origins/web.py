"""A model behind a plain URL, http or https."""

from typing import Final
from urllib.parse import urlsplit

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.http import FIRST_BYTE, Client
from morpheus_boot.cache.origins.origin import Address, Resolved
from morpheus_boot.cache.parts import Version
from morpheus_boot.manifest import UrlSource

_CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com"})


class WebOrigin:
    """What lies behind a URL; one of Civitai gets Civitai's token."""

    def __init__(
        self, subject: str, source: UrlSource, credentials: Credentials, client: Client
    ) -> None:
        self.subject = subject
        self._source = source
        self._client = client
        civitai = urlsplit(source.url.reveal()).hostname in _CIVITAI_HOSTS
        token = credentials.civitai_token if civitai else None
        self._address = Address(source.url, token, _CIVITAI_HOSTS)

    def resolve(self) -> Resolved:
        """Asks for the first byte: unlike HEAD, every origin answers that, behind signed URLs too."""
        answer = self._client.get(self._address, FIRST_BYTE, self.subject)
        with answer.response as response:
            return Resolved(
                answer.address,
                Version(self._source.identity, answer.size_bytes, None, answer.first_etag),
                answer.validator,
                honours_ranges=response.status_code == 206,
            )
