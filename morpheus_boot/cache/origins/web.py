"""A model behind a plain URL, http or https."""

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.http import FIRST_BYTE, Client
from morpheus_boot.cache.origins.origin import Address, Resolved
from morpheus_boot.cache.parts import Version
from morpheus_boot.manifest import UrlSource


class WebOrigin:
    """What lies behind a URL; one of Civitai's or of Hugging Face's own hosts gets the token for that."""

    def __init__(
        self, subject: str, source: UrlSource, credentials: Credentials, client: Client
    ) -> None:
        self.subject = subject
        self._source = source
        self._client = client
        token = credentials.for_host(source.host)
        self._address = Address(source.url, token, frozenset({source.host}))

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
